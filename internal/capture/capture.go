package capture

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/ltxstream/ltxstream/internal/keeper"
	"github.com/ltxstream/ltxstream/internal/pagesum"
	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/superfly/ltx"
)

// ErrDiverged is returned by Adopt when the database is not at the position.
var ErrDiverged = errors.New("database is not at this position")

// Capture is one primary. Open, then Adopt or Reseed where the chain cannot
// simply go on, then Run; Next, Acked, Sync, Full and Stats may be called from
// other goroutines meanwhile. Close after Run has returned.
type Capture struct {
	cfg      Config
	state    *state
	spool    *spool
	notifier *Notifier
	ownNote  bool

	// Owned by Run, and by Open and Adopt before it.
	primary
	table  *pagesum.Table
	reader groupReader
	enc    encoder
	timing timing
	unsure bool // the place in the WAL is unknown: compare before going on

	wake    chan struct{} // the -wal file changed, or something is wanted
	arrived chan struct{} // the spool has a new file
	syncs   chan chan syncResult
	ckpt    backfiller

	mu struct {
		sync.Mutex
		pos    ltx.Pos
		demand bool // Next waits for a file
		full   bool // a full file is wanted
		stats  Stats
	}
}

// primary is the database as it is open now. It ends when the file is replaced.
type primary struct {
	keeper  *keeper.Keeper
	db      *wal.DB
	chain   wal.Chain // captured up to here
	change  uint32    // change counter of the wal-index header there
	resting bool      // unpinned, because nothing happens
}

type syncResult struct {
	pos ltx.Pos
	err error
}

// Open locks the state directory, reads what an earlier run left there, and
// opens the database, which must exist. ErrLocked, fs.ErrNotExist and the errors
// of package keeper tell what is wrong.
func Open(ctx context.Context, cfg Config) (*Capture, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Capture{
		cfg:     cfg,
		wake:    make(chan struct{}, 1),
		arrived: make(chan struct{}, 1),
		syncs:   make(chan chan syncResult),
		ckpt:    newBackfiller(),
	}
	if err := c.open(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Capture) open(ctx context.Context) error {
	if err := c.openPrimary(ctx); err != nil { // first: a wrong path must leave nothing behind
		return err
	}
	var err error
	if c.state, err = openState(c.cfg.StateDir); err != nil {
		return err
	}
	if err := removePatches(c.cfg.StateDir); err != nil {
		return fmt.Errorf("clean state directory: %w", err)
	}
	if c.spool, err = openSpool(filepath.Join(c.cfg.StateDir, "spool")); err != nil {
		return err
	}
	if c.table, err = c.openTable(); err != nil {
		return err
	}
	c.enc.dir = c.cfg.StateDir
	if err := c.recoverPosition(); err != nil {
		return err
	}
	c.notifier = c.cfg.Notifier
	if c.notifier == nil {
		if c.notifier, err = NewNotifier(); err != nil {
			return err
		}
		c.ownNote = true
	}
	return nil
}

// Close lets go of everything. Run must have returned.
func (c *Capture) Close() error {
	var errs []error
	errs = append(errs, c.closePrimary())
	if c.ownNote {
		errs = append(errs, c.notifier.Close())
	}
	if c.table != nil {
		errs = append(errs, c.table.Close())
	}
	if c.state != nil {
		errs = append(errs, c.state.close())
	}
	return errors.Join(errs...)
}

// Writer returns the random id of the state directory.
func (c *Capture) Writer() string { return c.state.writer }

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
		if f, ok := c.spool.after(after); ok {
			c.setDemand(false)
			return f, nil
		}
		c.setDemand(true)
		poke(c.wake)
		select {
		case <-c.arrived:
		case <-ctx.Done():
			return File{}, context.Cause(ctx)
		}
	}
}

func (c *Capture) setDemand(v bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.demand = v
}

// Acked says that the stream has stored all files up to txid.
func (c *Capture) Acked(txid ltx.TXID) error {
	if err := c.spool.ack(txid, c.cfg.SpoolTail); err != nil {
		return fmt.Errorf("trim spool: %w", err)
	}
	return nil
}

// Full asks for a full file to follow what has been captured.
func (c *Capture) Full() {
	c.mu.Lock()
	c.mu.full = true
	c.mu.Unlock()
	poke(c.wake)
}

// Sync captures everything that was committed before the call, and returns the
// position of the file that holds the last of it.
func (c *Capture) Sync(ctx context.Context) (ltx.Pos, error) {
	reply := make(chan syncResult, 1)
	select {
	case c.syncs <- reply:
	case <-ctx.Done():
		return ltx.Pos{}, context.Cause(ctx)
	}
	select {
	case r := <-reply:
		return r.pos, r.err
	case <-ctx.Done():
		return ltx.Pos{}, context.Cause(ctx)
	}
}

// Adopt makes pos, at which a stream ends, the position of this database, if
// the database's checksum proves it: ErrDiverged otherwise. Before Run.
func (c *Capture) Adopt(ctx context.Context, pos ltx.Pos) error {
	if err := c.pin(ctx); err != nil {
		return err
	}
	res, err := compare(ctx, c.db, nil, nil)
	if err != nil {
		return err
	}
	if res.total() != pos.PostApplyChecksum {
		return fmt.Errorf("%w: its checksum is %s, the position is %s", ErrDiverged, res.total(), pos)
	}
	if err := c.spool.clear(); err != nil {
		return fmt.Errorf("clear spool: %w", err)
	}
	c.table.Reset(res.end.PageSize)
	if err := c.table.Update(pos, res.count, res.pages()); err != nil {
		return err
	}
	c.setPos(pos)
	c.at(res.end, res.change)
	return c.state.saveCursor(place{res.end.Salt, res.end.Frame, pos.TXID})
}

// Reseed makes the next file a full one that follows pos, at which a stream
// ends (zero: an empty stream). What the spool holds is dropped. Before Run.
func (c *Capture) Reseed(pos ltx.Pos) error {
	if err := c.spool.clear(); err != nil {
		return fmt.Errorf("clear spool: %w", err)
	}
	c.table.Reset(c.table.PageSize())
	c.setPos(pos)
	c.unsure = true
	c.mu.full = true
	return nil
}

// timing is when things last happened.
type timing struct {
	event      time.Time // the -wal file changed
	frames     time.Time // new frames were seen
	torn       time.Time // the wal-index header is torn since; zero: it is not
	unpinned   time.Time // the pin is wanted and not to be had since
	identified time.Time // the file was compared with its name
	asked      time.Time // who holds the WAL was asked for
	tryCkpt    time.Time // not before may the WAL be restarted again
	backoff    time.Duration
}

// Oldest returns the timestamp of the oldest file that awaits acknowledgement.
func (c *Capture) Oldest() (time.Time, bool) {
	f, ok := c.spool.oldest()
	return time.UnixMilli(f.Header.Timestamp), ok
}
