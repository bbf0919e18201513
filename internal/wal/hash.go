package wal

import (
	"fmt"
	"unsafe"
)

// A hashTable is one region's page numbers and hash table: which page each of
// its frames holds, and where to find a page's frames.
type hashTable struct {
	zero  uint32 // frame number before the first of this table
	pgnos []uint32
	slots []uint16 // 0: free; else the frame is zero + slot
}

func regionOf(frame uint32) int {
	return int((frame + framesPerRegion - framesInFirst - 1) / framesPerRegion)
}

func (x *index) table(i int, extend bool) (hashTable, error) {
	r, err := x.region(i, extend)
	if err != nil {
		return hashTable{}, err
	}
	t := hashTable{slots: unsafe.Slice((*uint16)(unsafe.Pointer(&r[regionSize/2])), hashSlots)}
	if i == 0 {
		t.pgnos = unsafe.Slice((*uint32)(unsafe.Pointer(&r[headerBytes])), framesInFirst)
	} else {
		t.pgnos = unsafe.Slice((*uint32)(unsafe.Pointer(&r[0])), framesPerRegion)
		t.zero = framesInFirst + uint32(i-1)*framesPerRegion
	}
	return t, nil
}

func hashOf(pgno uint32) uint32   { return pgno * 383 & (hashSlots - 1) }
func nextSlot(slot uint32) uint32 { return (slot + 1) & (hashSlots - 1) }
func (t hashTable) clear()        { clear(t.pgnos); clear(t.slots) }
func (t hashTable) last() uint32  { return t.zero + uint32(len(t.pgnos)) }

// dropAfter removes the entries of frames beyond last, which is in this table
// or the one before: remnants of a writer that died in the middle of a
// transaction (walCleanupHash). Those left were entered before those dropped,
// so every one of them stays within reach of its hash.
func (t hashTable) dropAfter(last uint32) {
	limit := last - t.zero
	for i, s := range t.slots {
		if uint32(s) > limit {
			t.slots[i] = 0
		}
	}
	clear(t.pgnos[limit:])
}

// add enters frame as holding page pgno, behind the frames entered so far.
// Whatever the table holds of this frame and later ones was never committed.
// The caller holds WRITE.
func (x *index) add(frame, pgno uint32) error {
	t, err := x.table(regionOf(frame), true)
	if err != nil {
		return err
	}
	i := frame - t.zero
	switch {
	case i == 1:
		t.clear()
	case t.pgnos[i-1] != 0:
		t.dropAfter(frame - 1)
	}
	slot := hashOf(pgno)
	for n := i; t.slots[slot] != 0; slot = nextSlot(slot) {
		if n == 0 {
			return fmt.Errorf("wal-index hash table %d is full at frame %d: %w", regionOf(frame), frame, ErrFormat)
		}
		n--
	}
	t.pgnos[i-1] = pgno
	t.slots[slot] = uint16(i)
	return nil
}

// Find returns the last frame in [first, last] that holds page pgno, or 0.
// The caller must keep the WAL from being restarted meanwhile.
func (d *DB) Find(pgno, first, last uint32) (uint32, error) {
	if last == 0 || first > last {
		return 0, nil
	}
	for i := regionOf(last); i >= regionOf(max(first, 1)); i-- {
		t, err := d.index.table(i, false)
		if err != nil {
			return 0, err
		}
		if frame := t.find(pgno, first, last); frame != 0 {
			return frame, nil
		}
	}
	return 0, nil
}

func (t hashTable) find(pgno, first, last uint32) (found uint32) {
	slot := hashOf(pgno)
	for n := 0; t.slots[slot] != 0 && n < hashSlots; n++ {
		frame := t.zero + uint32(t.slots[slot])
		if i := frame - t.zero - 1; frame >= first && frame <= last && i < uint32(len(t.pgnos)) && t.pgnos[i] == pgno {
			found = max(found, frame)
		}
		slot = nextSlot(slot)
	}
	return found
}

// Pages returns, as pgno<<32 | frame and sorted so, the last frame of each page
// among the frames (after, last]. The caller must keep the WAL from being
// restarted meanwhile.
func (d *DB) Pages(after, last uint32) ([]uint64, error) {
	if after >= last {
		return nil, nil
	}
	all := make([]uint64, 0, last-after)
	for i := regionOf(after + 1); i <= regionOf(last); i++ {
		t, err := d.index.table(i, false)
		if err != nil {
			return nil, err
		}
		for f := max(after, t.zero) + 1; f <= min(last, t.last()); f++ {
			all = append(all, uint64(t.pgnos[f-t.zero-1])<<32|uint64(f))
		}
	}
	return LastFrames(all), nil
}
