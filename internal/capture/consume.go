package capture

import (
	"context"
	"fmt"

	"github.com/superfly/ltx"
)

// Pos returns the position of the newest file in the spool; zero: nothing has
// been captured yet.
func (c *Capture) Pos() ltx.Pos {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.pos
}

func (c *Capture) setPos(p ltx.Pos) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.pos = p
}

// PosAt returns the position after txid where the spool still knows it.
func (c *Capture) PosAt(txid ltx.TXID) (ltx.Pos, bool) {
	if p := c.Pos(); p.TXID == txid && txid != 0 {
		return p, true
	}
	if f, ok := c.spool.find(txid); ok {
		return f.Pos(), true
	}
	if f, ok := c.spool.find(txid + 1); ok {
		return f.PrePos(), true
	}
	return ltx.Pos{}, false
}

// Next returns the first file beyond after, capturing what has been committed
// when there is none yet, and waiting when nothing has.
func (c *Capture) Next(ctx context.Context, after ltx.TXID) (File, error) {
	for {
		arrived := c.expect()
		if f, ok := c.spool.after(after); ok {
			return f, nil
		}
		c.setDemand(true)
		poke(c.wake)
		select {
		case <-arrived:
		case <-ctx.Done():
			return File{}, context.Cause(ctx)
		}
	}
}

// expect returns a channel that is closed with the next file.
func (c *Capture) expect() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.arrived == nil {
		c.mu.arrived = make(chan struct{})
	}
	return c.mu.arrived
}

// announce wakes whoever expects a file.
func (c *Capture) announce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.demand = false
	if c.mu.arrived != nil {
		close(c.mu.arrived)
		c.mu.arrived = nil
	}
}

func (c *Capture) setDemand(v bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.demand = v
}

// Acked says that the stream has stored all files up to txid.
func (c *Capture) Acked(txid ltx.TXID) error {
	if err := c.passed(txid); err != nil {
		return fmt.Errorf("drop junction: %w", err)
	}
	full := !c.spoolHasRoom()
	err := c.spool.ack(txid, c.cfg.SpoolTail)
	if full && c.spoolHasRoom() {
		poke(c.wake)
	}
	if err != nil {
		return fmt.Errorf("trim spool: %w", err)
	}
	return nil
}

// Full asks for a full file to follow what has been captured.
func (c *Capture) Full() {
	c.setFull()
	poke(c.wake)
}
