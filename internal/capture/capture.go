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
	table     *pagesum.Table
	reader    groupReader
	enc       encoder
	timing    timing
	care      care
	pageSize  uint32 // of the table, which may be the spooler's at the moment
	unsure    bool   // the place in the WAL is unknown: compare before going on
	overtaken bool   // … because it was restarted before it was read
	trouble   bool   // frames cannot be captured at the moment
	left      remains

	wake    chan struct{} // the -wal file changed, or something is wanted
	syncs   chan chan syncResult
	ckpt    backfiller
	spooler spooler

	mu struct {
		sync.Mutex
		pos     ltx.Pos
		demand  bool          // Next waits for a file
		arrived chan struct{} // closed with the next file; nil: nobody waits
		full    bool          // a full file is wanted
		stats   Stats

		junction *junction // where the chain was made to follow a stream; nil: a file behind it was acknowledged
	}
}

// primary is the database as it is open now. It ends when the file is replaced.
type primary struct {
	keeper   *keeper.Keeper
	db       *wal.DB
	walPath  string
	dbID     wal.FileID
	walID    wal.FileID
	held     held     // read and not captured yet
	change   counter  // of the wal-index header at the place read up to
	backfill backfill // as it was seen last
	resting  bool     // nothing happens: no buffers are kept
	watched  bool     // notices of changes come
	hot      bool     // polled, because notices would cost its writers too much
}

// remains are the files of a database that was replaced.
type remains struct {
	db, shm, wal wal.FileID
	path         string // of the WAL; "": none was replaced
}

// counter is the change counter of the wal-index, which counts transactions.
type counter struct {
	n     uint32
	known bool
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
		syncs:   make(chan chan syncResult),
		ckpt:    newBackfiller(),
		spooler: newSpooler(),
	}
	if err := c.open(ctx); err != nil {
		if errors.Is(err, ErrLocked) {
			c.cfg.SoleOwner = false // the other one may be in this process
		}
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
	ids := []wal.FileID{c.left.db, c.left.shm}
	if c.db != nil {
		db, shm := c.db.IDs()
		ids = append(ids, db, shm)
	}
	errs := []error{c.closePrimary(), c.closeIdle(ids...)}
	if c.ownNote {
		errs = append(errs, c.notifier.Close())
	}
	if c.spool != nil {
		errs = append(errs, c.spool.endSegment())
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

// timing is when things last happened.
type timing struct {
	event      time.Time // the -wal file changed
	frames     time.Time // new frames were seen
	held       time.Time // the first of the held frames was read
	torn       time.Time // the wal-index header is torn since; zero: it is not
	unpinned   time.Time // the pin is wanted and not to be had since
	identified time.Time // the file was compared with its name
	alone      time.Time // it was asked who else is there
	asked      time.Time // who holds the WAL was asked for
	backfill   time.Time // others backfilled or restarted the WAL
	tryCkpt    time.Time // not before may the WAL be restarted again
	backoff    time.Duration
}

// Oldest returns the timestamp of the oldest file that awaits acknowledgement.
func (c *Capture) Oldest() (time.Time, bool) {
	f, ok := c.spool.oldest()
	return time.UnixMilli(f.Header.Timestamp), ok
}
