package replica

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/internal/pagesum"
)

// DefaultSoftWALLimit is how large the WAL may grow, in bytes, before it is
// restarted.
const DefaultSoftWALLimit = 4 << 20

// Config says which file and how. Only Path is required.
type Config struct {
	Path     string // of the replica; its directory must exist, the file need not
	StateDir string // made when absent; "" means StateDirOf(Path). On the same machine as the replica, never shared

	// SoftWALLimit is in bytes; 0 means DefaultSoftWALLimit. Readers that never
	// pause or stay in a transaction can make the WAL grow beyond it.
	SoftWALLimit int64

	// SoleOwner says that no other code of this process ever opens the replica,
	// so Close may close its descriptors too.
	SoleOwner bool

	Logger *slog.Logger // nil means slog.Default()

	crash        func(label string) // tests end the process in it; called at every durable step
	journalLimit int64              // bytes at which a WAL restart rewrites the journal; tests lower it
}

// StateDirOf returns the default state directory of the replica at path:
// .NAME-ltx beside it.
func StateDirOf(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"-ltx")
}

func (c Config) withDefaults() (Config, error) {
	var errs []error
	if c.Path == "" {
		errs = append(errs, errors.New("no path given"))
	}
	if c.SoftWALLimit < 0 {
		errs = append(errs, fmt.Errorf("soft WAL limit %d is negative", c.SoftWALLimit))
	}
	if c.SoftWALLimit == 0 {
		c.SoftWALLimit = DefaultSoftWALLimit
	}
	if c.StateDir == "" {
		c.StateDir = StateDirOf(c.Path)
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.journalLimit == 0 {
		c.journalLimit = journalRewrite
	}
	if c.crash == nil {
		c.crash = func(string) {}
	}
	return c, errors.Join(errs...)
}

// Replica is an open replica file. All methods are safe for concurrent use;
// calls of Apply follow one another.
type Replica struct {
	cfg      Config
	path     string // where cfg.Path leads
	progress progress
	counters counters

	apply struct { // guards all below
		sync.Mutex
		journal *journal
		table   *pagesum.Table
		stale   bool            // the table misses the last commit
		scan    ltxfile.Scanner // of the file that is applied
		changes changes
		restart restartPlan
	}
	live struct { // who changes it holds apply too
		sync.RWMutex
		*live              // nil: there is no database yet
		lost    *LostError // why there is content without a position
		foundBy string     // how the position was found
	}
}

// Open opens the replica and finds its position; it makes the state directory,
// but no database: an absent or empty file has the zero position until a full
// file is applied. Content that is no known position has the zero position too,
// and Lost says why; readers go on reading it. Errors: ErrLocked when another
// process writes to it, and those of package keeper.
func Open(ctx context.Context, cfg Config) (*Replica, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open replica: %w", err)
	}
	r := &Replica{cfg: cfg, path: cfg.Path}
	r.apply.Lock()
	defer r.apply.Unlock()
	if err := r.open(ctx); err != nil {
		return nil, fmt.Errorf("open replica: %w", errors.Join(err, r.shut()))
	}
	return r, nil
}

func (r *Replica) open(ctx context.Context) error {
	if p, err := filepath.EvalSymlinks(r.cfg.Path); err == nil {
		r.path = p
	}
	if err := os.MkdirAll(r.cfg.StateDir, 0o755); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if err := removeIfThere(r.tempPath()); err != nil {
		return err
	}
	var err error
	if r.apply.journal, err = openJournal(filepath.Join(r.cfg.StateDir, positionsName)); err != nil {
		return err
	}
	if r.apply.table, err = openTable(filepath.Join(r.cfg.StateDir, sumsName)); err != nil {
		return err
	}
	if n, err := sizeOf(r.path); err != nil || n == 0 {
		return err
	}
	return r.goLive(ctx)
}

// openTable opens the page checksums; a file that is something else is replaced
// by an empty table, to be filled from the database.
func openTable(path string) (*pagesum.Table, error) {
	t, err := pagesum.Open(path)
	if !errors.Is(err, pagesum.ErrCorrupt) {
		return t, err
	}
	if err := os.Remove(path); err != nil {
		return nil, err
	}
	return pagesum.Open(path)
}

// goLive opens the database, takes WRITE, and finds the position.
func (r *Replica) goLive(ctx context.Context) error {
	l, err := openLive(ctx, r.path)
	if err != nil {
		return err
	}
	r.setLive(l)
	if err := r.recover(ctx); err != nil {
		return errors.Join(fmt.Errorf("find position: %w", err), r.takeDown())
	}
	l.start(r)
	return nil
}

func (r *Replica) setLive(l *live) {
	r.live.Lock()
	defer r.live.Unlock()
	r.live.live = l
}

// takeDown closes the database; the files stay as they are.
func (r *Replica) takeDown() error {
	l := r.live.live
	if l == nil {
		return nil
	}
	r.setLive(nil)
	return l.close(r.cfg.SoleOwner)
}

// Lost returns why Open found content but no position for it, and nil once a
// full file was applied, or when nothing is wrong.
func (r *Replica) Lost() *LostError {
	r.live.RLock()
	defer r.live.RUnlock()
	return r.live.lost
}

func (r *Replica) setLost(err *LostError) {
	r.live.Lock()
	defer r.live.Unlock()
	r.live.lost = err
}

// Close ends what Open started and lets go of the replica; readers go on. What
// was applied is in the WAL and will be found by the next Open, unless the
// machine loses power. Closing twice is no error.
func (r *Replica) Close() error {
	if r.progress.close() {
		return nil
	}
	r.apply.Lock()
	defer r.apply.Unlock()
	if err := r.shut(); err != nil {
		return fmt.Errorf("close replica: %w", err)
	}
	return nil
}

func (r *Replica) shut() error {
	err := r.takeDown()
	if r.apply.journal != nil {
		err = errors.Join(err, r.apply.journal.close())
	}
	if r.apply.table != nil {
		err = errors.Join(err, r.apply.table.Close())
	}
	r.apply.journal, r.apply.table = nil, nil
	return err
}

func (r *Replica) log() *slog.Logger { return r.cfg.Logger }

// tempPath is where a bootstrap builds the database.
func (r *Replica) tempPath() string {
	return filepath.Join(filepath.Dir(r.path), "."+strings.TrimPrefix(filepath.Base(r.path), ".")+".ltx-new")
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sizeOf returns the size of the file at path; 0 where there is none.
func sizeOf(path string) (int64, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if !fi.Mode().IsRegular() {
		return 1, nil // package keeper says it better
	}
	return fi.Size(), nil
}

const (
	writeWait = 5 * time.Second // for WRITE at Open: a stray writer's transaction ends or is an error
	ckptWait  = 5 * time.Second // for CKPT at Open: a reader's own checkpoint
)
