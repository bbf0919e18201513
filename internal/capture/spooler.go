package capture

import (
	"sync"
	"time"
)

// A spooler makes LTX files of batches in a goroutine of its own: that waits for
// the disk, and meanwhile the WAL must be read, or it is restarted before it was.
// While it is busy, the encoder, the spool, the table and the cursor are its own.
type spooler struct {
	work   chan *changes // nil: not started
	done   chan error    // how the last piece of work ended
	busy   bool          // owned by the capture loop, as are the others
	failed bool          // the last piece of work
}

func newSpooler() spooler { return spooler{done: make(chan error, 1)} }

// start starts the goroutine, which has commit do the work; stop ends it. It must
// not be busy then.
func (s *spooler) start(commit func(*changes) error) (stop func()) {
	work := make(chan *changes)
	s.work = work
	var wg sync.WaitGroup
	wg.Go(func() {
		for ch := range work {
			s.done <- commit(ch)
		}
	})
	return func() {
		close(work)
		wg.Wait()
		s.work = nil
	}
}

// write has the oldest batch made into a file, unless the spooler is busy.
func (c *Capture) write() error {
	if c.spooler.busy || c.held.empty() {
		return nil
	}
	b := c.held.first()
	ch := b.changes()
	if c.spooler.work == nil || c.spooler.failed || ch.lacks(min(b.least, c.table.Count())) {
		return c.flush()
	}
	c.timing.held = time.Now() // of what is read from now on
	c.spooler.busy = true
	c.spooler.work <- ch
	return nil
}

// written takes the spooler's report.
func (c *Capture) written(err error) {
	c.spooler.busy, c.spooler.failed = false, err != nil
	if err != nil {
		return // the batch stays, and is tried again
	}
	c.heat(c.held.first().commits)
	c.held.done()
}

// settle waits for the spooler.
func (c *Capture) settle() {
	if c.spooler.busy {
		c.written(<-c.spooler.done)
	}
}

// flush makes files of all that is held.
func (c *Capture) flush() error {
	c.settle()
	for !c.held.empty() {
		b := c.held.first()
		ch := b.changes()
		if err := c.complete(ch, b.least); err != nil {
			return err
		}
		if err := c.commit(ch); err != nil {
			return err
		}
		c.written(nil)
	}
	return nil
}
