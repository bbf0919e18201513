package wal

import (
	"errors"
	"fmt"
)

// Pin keeps every process from restarting the WAL: it holds one READ slot
// shared, with a mark that no reader may use, so that it never holds back a
// checkpoint. Slots are tried from 4 down. ErrBusy: readers hold all of them.
func (d *DB) Pin() error {
	d.pin.Lock()
	defer d.pin.Unlock()
	if d.pin.slot != 0 {
		return nil
	}
	for i := Readers - 1; i >= 1; i-- {
		err := d.locks.try(Read(i), exclusive)
		if errors.Is(err, ErrBusy) {
			continue
		}
		if err != nil {
			return fmt.Errorf("pin: %w", err)
		}
		d.setReadMark(i, MarkUnused)
		if err := d.locks.downgrade(Read(i)); err != nil {
			return errors.Join(fmt.Errorf("pin: %w", err), d.locks.unlock(Read(i)))
		}
		d.pin.slot = i
		return nil
	}
	return fmt.Errorf("pin: %w", ErrBusy)
}

// Unpin lets go of the pin. Without a pin it does nothing.
func (d *DB) Unpin() error {
	d.pin.Lock()
	defer d.pin.Unlock()
	slot := d.pin.slot
	d.pin.slot = 0
	if slot == 0 {
		return nil
	}
	return d.locks.unlock(Read(slot))
}

// Pinned reports whether the pin is held.
func (d *DB) Pinned() bool {
	d.pin.Lock()
	defer d.pin.Unlock()
	return d.pin.slot != 0
}

// Pinner names a READ slot that somebody else holds.
type Pinner struct {
	Slot int
	Mark uint32
	PID  int // 0: unknown
}

// Pinners returns the READ slots that others hold: who keeps the WAL from being
// backfilled or restarted.
func (d *DB) Pinners() ([]Pinner, error) {
	var ps []Pinner
	for i := range Readers {
		h, err := d.Holder(Read(i))
		if err != nil {
			return nil, err
		}
		if h.Held {
			ps = append(ps, Pinner{Slot: i, Mark: d.ReadMark(i), PID: h.PID})
		}
	}
	return ps, nil
}
