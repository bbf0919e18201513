package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// startOf returns the chain at the start of the generation of h. The caller
// keeps the WAL from being restarted.
func startOf(db *wal.DB, h wal.Header) (wal.Chain, error) {
	fh, sum, err := db.FileHeader()
	if err != nil {
		return wal.Chain{}, err
	}
	if fh.Salt != h.Salt {
		return wal.Chain{}, fmt.Errorf("wal header has other salts than the wal-index: %w", wal.ErrChain)
	}
	return wal.StartChain(fh, sum), nil
}

// chainAt returns the chain behind frame of the current generation: a frame's
// header holds the running checksum up to it.
func chainAt(db *wal.DB, h wal.Header, frame uint32) (wal.Chain, error) {
	chain := h.Chain()
	chain.Frame, chain.Sum = 0, wal.Sum{}
	if frame == 0 {
		return chain, nil
	}
	var b [wal.FrameHeaderSize]byte
	if _, err := db.ReadWAL(b[:], wal.FrameOffset(frame, h.PageSize)); err != nil {
		return wal.Chain{}, fmt.Errorf("read wal frame %d: %w", frame, err)
	}
	be := binary.BigEndian
	if (wal.Salt{be.Uint32(b[8:]), be.Uint32(b[12:])}) != h.Salt || be.Uint32(b[4:]) == 0 {
		return wal.Chain{}, fmt.Errorf("wal frame %d is not a commit of this generation: %w", frame, wal.ErrChain)
	}
	chain.Frame, chain.Sum = frame, wal.Sum{be.Uint32(b[16:]), be.Uint32(b[20:])}
	return chain, nil
}

// commitsIn counts the commits in the generation of h, up to h. The caller
// keeps the WAL from being restarted.
func commitsIn(db *wal.DB, h wal.Header) (uint32, error) {
	if h.MaxFrame == 0 {
		return 0, nil
	}
	chain, err := startOf(db, h)
	if err != nil {
		return 0, err
	}
	return countCommits(db, chain, h.MaxFrame)
}

// countCommits verifies the frames behind chain up to last and counts commits,
// never more than there are: a commit frame that repeats the one before may be
// padding to a sector (walFrames in wal.c), and is not counted.
func countCommits(db *wal.DB, chain wal.Chain, last uint32) (n uint32, err error) {
	size := chain.FrameSize()
	per := uint32(max(1, readChunk/size))
	buf := make([]byte, int(min(per, last-chain.Frame))*size)
	var count commitCounter
	for chain.Frame < last {
		b := buf[:int(min(per, last-chain.Frame))*size]
		if _, err := db.ReadWAL(b, wal.FrameOffset(chain.Frame+1, chain.PageSize)); err != nil {
			return 0, fmt.Errorf("read wal: %w", err)
		}
		for ; len(b) > 0; b = b[size:] {
			if _, err := chain.Next(b); err != nil {
				return 0, err
			}
			count.add(b[:size])
		}
	}
	return count.n, nil
}

// commitsOf counts the commits among frames that were verified, as countCommits
// does.
func commitsOf(frames []byte, size int) uint32 {
	var count commitCounter
	for ; len(frames) >= size; frames = frames[size:] {
		count.add(frames[:size])
	}
	return count.n
}

type commitCounter struct {
	n      uint32
	before []byte // the last frame, if it was a commit
}

func (c *commitCounter) add(frame []byte) {
	if binary.BigEndian.Uint32(frame[4:]) == 0 {
		c.before = c.before[:0]
		return
	}
	if !sameFrame(c.before, frame) {
		c.n++
	}
	c.before = append(c.before[:0], frame...)
}

// sameFrame compares all but the running checksums of two frames.
func sameFrame(a, b []byte) bool {
	return len(a) == len(b) && bytes.Equal(a[:16], b[:16]) && bytes.Equal(a[wal.FrameHeaderSize:], b[wal.FrameHeaderSize:])
}
