package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// How often the loop looks at the wal-index, besides when it is told to.
const (
	idleAfter     = 10 * time.Second       // without new frames a database is idle
	idlePoll      = 2 * time.Second        // an idle database
	activePoll    = 5 * time.Millisecond   // one that is not: is a checkpointer waiting?
	yieldPoll     = 100 * time.Microsecond // while the pin is let go for a checkpointer
	eventPoll     = 30 * time.Microsecond  // after a write to the -wal file, doubling
	eventSpan     = 50 * time.Millisecond  // … for so long: the header follows the frames
	tornSpan      = 50 * time.Millisecond  // a header torn for longer needs recovery
	identifyEvery = 2 * time.Millisecond   // is it still the same file?
	retryAfter    = 500 * time.Millisecond // after an error
)

// Run captures until the context ends, then captures what is committed by then
// and returns nil. Whatever goes wrong meanwhile can pass (a file that is absent
// may be on its way to be replaced), is tried again, and shows in Stats.
func (c *Capture) Run(ctx context.Context) error {
	c.watch()
	defer func() { c.notifier.unwatch(c.cfg.Path + "-wal") }()
	stop := c.ckpt.start()
	defer stop()
	c.loop(ctx)
	c.drain(context.WithoutCancel(ctx))
	return nil
}

// drain captures what is there, so that a clean stop leaves nothing behind.
func (c *Capture) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	h, err := c.look(ctx)
	if err == nil && !c.unsure {
		err = c.takeAll(ctx, h)
	}
	if err != nil {
		c.cfg.Logger.Warn("last transactions were not captured before the stop; the next run finds them", "path", c.cfg.Path, "err", err)
	}
}

func (c *Capture) loop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var waiting []chan syncResult
	poll := time.Duration(0)
	for {
		err := c.step(ctx, len(waiting) > 0)
		if ctx.Err() != nil {
			c.answer(waiting, context.Cause(ctx))
			return
		}
		c.noteError(err)
		if err == nil && c.caughtUp() {
			c.answer(waiting, nil)
			waiting = nil
		}
		timer.Reset(c.nextPoll(err, len(waiting) > 0, &poll))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-c.wake:
			c.timing.event, poll = time.Now(), 0
		case r := <-c.syncs:
			waiting = append(waiting, r)
		case err := <-c.ckpt.done:
			c.ckpt.busy = false
			c.backOff(err == nil)
		}
	}
}

func (c *Capture) answer(waiting []chan syncResult, err error) {
	for _, w := range waiting {
		w <- syncResult{pos: c.Pos(), err: err}
	}
}

// nextPoll says how long to wait for an event. poll carries the doubling wait
// after a write to the -wal file.
func (c *Capture) nextPoll(err error, wanted bool, poll *time.Duration) time.Duration {
	switch now := time.Now(); {
	case errors.Is(err, errSlotsTaken):
		return activePoll
	case err != nil:
		return retryAfter
	case wanted:
		return yieldPoll
	case !c.timing.torn.IsZero():
		return time.Millisecond
	case c.db != nil && !c.db.Pinned() && !c.resting:
		return yieldPoll
	case now.Sub(c.timing.event) < eventSpan:
		*poll = min(max(*poll*2, eventPoll), activePoll)
		return *poll
	case now.Sub(c.timing.frames) < idleAfter:
		return activePoll
	default:
		return idlePoll
	}
}

// step looks at the database once and does what there is to do.
func (c *Capture) step(ctx context.Context, wanted bool) error {
	h, err := c.look(ctx)
	if err != nil {
		if errors.Is(err, errNotNow) {
			return nil
		}
		return err
	}
	if c.fullWanted() || c.unsure {
		return c.recapture(ctx)
	}
	contended, err := c.contended()
	if err != nil {
		return err
	}
	if c.pending(h) {
		c.timing.frames = time.Now()
		if err := c.takePending(ctx, h, wanted || contended); err != nil {
			return err
		}
	}
	c.picture(h)
	if contended && c.yield(h) {
		return nil
	}
	return c.keepBounded(ctx, h)
}

// takePending captures if somebody waits for it, or if it is time to make room.
func (c *Capture) takePending(ctx context.Context, h wal.Header, wanted bool) error {
	switch {
	case !c.spoolHasRoom():
		return errSpoolFull
	case wanted:
		return c.takeAll(ctx, h)
	case c.demanded():
		return c.take(h)
	}
	return nil
}

// look makes sure that the database is the one we know, and pinned unless there
// is a reason, and that the captured place belongs to its WAL; then it returns
// the header. Afterwards c.unsure tells that the place is unknown. errNotNow:
// there is nothing to go by at the moment, look again soon.
func (c *Capture) look(ctx context.Context) (wal.Header, error) {
	if c.moved() {
		if c.ckpt.busy {
			return wal.Header{}, errNotNow // it still uses the files: its report wakes us
		}
		if err := c.reopen(ctx); err != nil {
			return wal.Header{}, err
		}
	}
	h, err := c.db.Header()
	if errors.Is(err, wal.ErrTorn) || errors.Is(err, wal.ErrFormat) {
		return wal.Header{}, c.recoverIndex(ctx)
	}
	if err != nil {
		return wal.Header{}, err
	}
	c.timing.torn = time.Time{}
	if c.db.Pinned() {
		return c.follow(h)
	}
	return c.repin(h)
}

// moved reports whether the name leads to another file than the one open.
func (c *Capture) moved() bool {
	if c.db == nil {
		return true
	}
	now := time.Now()
	if now.Sub(c.timing.identified) < identifyEvery {
		return false
	}
	c.timing.identified = now
	return c.db.Moved()
}

// recoverIndex lets SQLite recover a wal-index whose writer died in the middle
// of a store, once nobody else has done so.
func (c *Capture) recoverIndex(ctx context.Context) error {
	now := time.Now()
	if c.timing.torn.IsZero() {
		c.timing.torn = now
	}
	if now.Sub(c.timing.torn) < tornSpan {
		return errNotNow
	}
	c.cfg.Logger.Info("wal-index is torn, asking sqlite to recover it", "path", c.cfg.Path)
	c.timing.torn = now
	if err := c.keeper.Touch(ctx); err != nil {
		return err
	}
	return errNotNow
}

// follow handles a changed generation under the pin. Only the first writer of an
// empty WAL can have changed the salts then: nothing was captured of the
// generation, and nothing was missed.
func (c *Capture) follow(h wal.Header) (wal.Header, error) {
	if c.unsure || h.Salt == c.chain.Salt && h.MaxFrame >= c.chain.Frame {
		return h, nil
	}
	if c.chain.Frame == 0 {
		return h, c.beginGeneration(h)
	}
	c.cfg.Logger.Info("wal was recovered under the pin, comparing", "path", c.cfg.Path)
	c.unsure = true
	return h, nil
}

func (c *Capture) beginGeneration(h wal.Header) error {
	size := c.chain.PageSize
	if h.MaxFrame > 0 {
		size = h.PageSize
	}
	if size != c.table.PageSize() {
		c.unsure = true
		return nil
	}
	c.chain = wal.Chain{PageSize: size, BigEndian: h.BigEndian, Salt: h.Salt}
	return c.state.saveCursor(place{h.Salt, 0, c.Pos().TXID})
}

// repin takes the pin again, when it is time, and finds out whether anything was
// missed meanwhile.
func (c *Capture) repin(h wal.Header) (wal.Header, error) {
	same := !c.unsure && h.Salt == c.chain.Salt && h.MaxFrame == c.chain.Frame
	if same && c.resting {
		return h, nil
	}
	if same {
		if contended, err := c.contended(); err != nil || contended {
			return h, err // the checkpointer that we let go for is not done
		}
	}
	if err := c.db.Pin(); err != nil {
		return h, c.slotsTaken(err)
	}
	c.resting, c.timing.unpinned = false, time.Time{}
	h, err := c.db.Header()
	if err != nil || c.unsure || h.Salt == c.chain.Salt && h.MaxFrame >= c.chain.Frame {
		return h, err
	}
	return h, c.account(h)
}

// slotsTaken turns a pin that is busy into an error only where that lasts: a
// restart by somebody else takes all slots for an instant.
func (c *Capture) slotsTaken(err error) error {
	now := time.Now()
	c.resting = false
	if c.timing.unpinned.IsZero() {
		c.timing.unpinned = now
	}
	switch {
	case !errors.Is(err, wal.ErrBusy):
		return err
	case now.Sub(c.timing.unpinned) < time.Second:
		return errNotNow
	default:
		return errSlotsTaken
	}
}

// account decides whether a generation that began while the pin was not held
// holds everything that was committed since: the wal-index counts transactions,
// and restarts do not reset the count. If the generation holds as many commits
// as the count has grown by, nothing is missing and capture goes on at its start.
func (c *Capture) account(h wal.Header) error {
	n, err := c.commitsIn(h)
	if err != nil || c.change == 0 || h.Change-c.change != n {
		c.cfg.Logger.Info("wal was restarted meanwhile, comparing", "path", c.cfg.Path, "commits", n, "counted", h.Change-c.change, "err", err)
		c.unsure = true
		return nil
	}
	return c.beginGeneration(h)
}

// commitsIn counts the commits in the current generation.
func (c *Capture) commitsIn(h wal.Header) (uint32, error) {
	if h.MaxFrame == 0 {
		return 0, nil
	}
	chain, err := c.startOf(h)
	if err != nil {
		return 0, err
	}
	return countCommits(c.db, chain, h.MaxFrame)
}

// startOf returns the chain at the start of the generation of h.
func (c *Capture) startOf(h wal.Header) (wal.Chain, error) {
	fh, sum, err := c.db.FileHeader()
	if err != nil {
		return wal.Chain{}, err
	}
	if fh.Salt != h.Salt {
		return wal.Chain{}, fmt.Errorf("wal header has other salts than the wal-index: %w", wal.ErrChain)
	}
	return wal.StartChain(fh, sum), nil
}

// pending reports whether h has frames that were not captured.
func (c *Capture) pending(h wal.Header) bool { return h.MaxFrame > c.chain.Frame }

func (c *Capture) caughtUp() bool {
	if c.db == nil || c.unsure {
		return false
	}
	h, err := c.db.Header()
	return err == nil && h.Salt == c.chain.Salt && h.MaxFrame == c.chain.Frame
}

func (c *Capture) demanded() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.demand
}

func (c *Capture) fullWanted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.full
}

func (c *Capture) spoolHasRoom() bool {
	_, bytes := c.spool.usage()
	return bytes < c.cfg.SpoolLimit
}

// contended reports whether somebody else holds WRITE and CKPT at once: a
// checkpointer that waits for readers, and holds back every writer meanwhile.
func (c *Capture) contended() (bool, error) {
	for _, l := range []wal.Lock{wal.Ckpt, wal.Write} {
		if h, err := c.db.Holder(l); err != nil || !h.Held {
			return false, err
		}
	}
	return true, nil
}

// yield lets go of the pin for such a checkpointer, once there is nothing that
// a restart could make us miss.
func (c *Capture) yield(h wal.Header) bool {
	now, err := c.db.Header()
	if !c.db.Pinned() || err != nil || now != h || c.pending(now) || c.db.Backfilled() != now.MaxFrame {
		return false
	}
	c.change = now.Change
	if err := c.db.Unpin(); err != nil {
		return false
	}
	c.count(func(s *Stats) { s.Yields++ })
	if c.cfg.Observer.Yielded != nil {
		c.cfg.Observer.Yielded()
	}
	return true
}

// rest lets go of the pin of a database on which nothing happens, so that
// whoever wants to checkpoint it need not wait for us. An empty WAL stays
// pinned: its first writer may choose any salts.
func (c *Capture) rest(h wal.Header) error {
	if time.Since(c.timing.frames) < idleAfter || h.MaxFrame == 0 || c.pending(h) || !c.db.Pinned() {
		return nil
	}
	c.change = h.Change
	c.resting = true
	c.reader.release()
	c.enc.release()
	return c.db.Unpin()
}

var (
	errNotNow     = errors.New("not now")
	errSpoolFull  = errors.New("spool is full: transactions stay in the wal until the stream takes files again")
	errSlotsTaken = errors.New("readers hold every read slot of the wal: waiting for one to end")
)
