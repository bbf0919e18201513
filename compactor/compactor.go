package compactor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
)

// Config of a Compactor. Archive and DB are required; zero values of the rest
// mean the documented defaults.
type Config struct {
	Archive  *levels.Archive
	DB       string
	Schedule Schedule // default DefaultSchedule
	Policy   Policy   // default: everything is kept
	// NoChecksums leaves the database checksums out of what is written.
	NoChecksums bool
	SpillDir    string       // default os.TempDir
	Logger      *slog.Logger // default slog.Default()
	Metrics     Observer     // nil: none
}

// Observer is told what a Compactor does, for metrics.
type Observer interface {
	Stored(level levels.Level, f levels.File, took time.Duration)
	Deleted(files []levels.File)
	Damaged(err error)
}

// Compactor keeps the archive of one database in order: it is the only writer
// of it. One goroutine may store what is new (StoreFirst, StoreBase) while
// another keeps order (Step, Prune).
type Compactor struct {
	cfg    Config
	log    *slog.Logger
	pruned time.Time // by Step

	mu struct {
		sync.Mutex
		inv      *Inventory
		verified map[ltx.TXID]bool     // snapshots that were read back, by their Max
		lost     error                 // damage that no chain leads around
		lostAt   ltx.TXID              // … and behind which a snapshot would begin anew
		unpruned error                 // damage that kept the last Step from pruning
		unsure   map[levels.Level]bool // of which storing a file failed
		bad      map[string]bool       // keys of what was passed over
	}
}

// New returns a Compactor that knows what the archive holds: it lists it once.
// Files that it has to read and cannot are passed over.
func New(ctx context.Context, cfg Config) (*Compactor, error) {
	if cfg.Schedule.Snapshot == 0 && cfg.Schedule.Windows == nil {
		cfg.Schedule = DefaultSchedule
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if err := errors.Join(cfg.Schedule.Validate(), cfg.Policy.Validate()); err != nil {
		return nil, fmt.Errorf("new compactor: %w", err)
	}
	inv, err := ReadInventory(ctx, cfg.Archive, cfg.DB)
	if err != nil {
		return nil, fmt.Errorf("new compactor: %w", err)
	}
	c := &Compactor{cfg: cfg, log: cfg.Logger}
	c.mu.inv, c.mu.verified, c.mu.unsure = inv, map[ltx.TXID]bool{}, map[levels.Level]bool{}
	c.mu.bad = map[string]bool{}
	if err := c.stamp(ctx); err != nil {
		return nil, fmt.Errorf("new compactor: %w", err)
	}
	return c, nil
}

// stamp stamps the inventory, without what cannot be read.
func (c *Compactor) stamp(ctx context.Context) error {
	for {
		f, err := c.mu.inv.stamp(ctx, c.cfg.Archive, c.cfg.DB, c.cfg.Schedule.Top())
		if err == nil || ctx.Err() != nil || !Broken(err) {
			return err
		}
		c.leaveOut(f, err)
	}
}

// Head is where the archive ends: its newest file that tells, and the position
// after it (checksum 0: it bears none). Zero: the archive is empty. Call it before
// anything is stored.
func (c *Compactor) Head(ctx context.Context) (levels.File, ltx.Pos, error) {
	for {
		end := c.End()
		if end.Max == 0 {
			return end, ltx.Pos{}, nil
		}
		post, err := PostOf(ctx, c.cfg.Archive, c.cfg.DB, end)
		if err == nil {
			return end, ltx.NewPos(end.Max, post), nil
		}
		if ctx.Err() != nil || !Broken(err) {
			return end, ltx.Pos{}, fmt.Errorf("read the end of the archive: %w", err)
		}
		c.leaveOut(end, err)
		if err := c.stamp(ctx); err != nil {
			return end, ltx.Pos{}, err
		}
	}
}

// leaveOut passes over a file before anything was stored: where it is the newest
// one the archive ends before it, and goes on there.
func (c *Compactor) leaveOut(f levels.File, err error) {
	c.reportDamage(f, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.remove(f)
	if end := c.mu.inv.End().Max; end > 0 && !c.mu.inv.reaches(end) {
		c.mu.lost, c.mu.lostAt = err, max(c.mu.lostAt, end)
	}
}

// Inventory returns a copy of what the archive holds.
func (c *Compactor) Inventory() *Inventory {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.inv.clone()
}

// End is the newest file of the archive.
func (c *Compactor) End() levels.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.inv.End()
}

// Lost is set while damage stands in the way to the newest point, and says what
// it is: a new whole file of the database ends it (see [Compactor.StoreBase]).
func (c *Compactor) Lost() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.lost
}

// Alarm is what somebody has to look at: Lost, or the damage that kept the last
// [Compactor.Step] that was to delete old files from it.
func (c *Compactor) Alarm() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.lost != nil {
		return c.mu.lost
	}
	return c.mu.unpruned
}

// StoreFirst merges what came from the stream into the next file of level 1.
func (c *Compactor) StoreFirst(ctx context.Context, inputs []Input, total int64) (levels.File, Merged, error) {
	return c.store(ctx, levels.First, inputs, total)
}

// StoreBase makes a snapshot of files of which the first holds every page.
func (c *Compactor) StoreBase(ctx context.Context, inputs []Input, total int64) (levels.File, Merged, error) {
	return c.store(ctx, levels.Snapshot, inputs, total)
}

func (c *Compactor) store(ctx context.Context, level levels.Level, inputs []Input, total int64) (levels.File, Merged, error) {
	begin := time.Now()
	f, m, err := Store(ctx, StoreConfig{
		Archive: c.cfg.Archive, DB: c.cfg.DB,
		MergeOptions: MergeOptions{NoChecksums: c.cfg.NoChecksums, SpillDir: c.cfg.SpillDir},
	}, level, inputs, total)
	if err != nil {
		if _, input := errors.AsType[*InputError](err); !input { // else nothing was stored
			c.unsure(level)
		}
		return f, m, err
	}
	c.stored(f)
	took := time.Since(begin)
	c.log.Debug("file stored", "level", int(level), "min", f.Min, "max", f.Max, "bytes", f.Size, "took", took)
	if c.cfg.Metrics != nil {
		c.cfg.Metrics.Stored(level, f, took)
	}
	return f, m, nil
}

func (c *Compactor) stored(f levels.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.inv.Add(f)
	delete(c.mu.bad, c.cfg.Archive.Key(c.cfg.DB, f))
	if f.Level != levels.Snapshot {
		return
	}
	c.mu.verified[f.Max] = true
	if f.Max >= c.mu.lostAt {
		c.mu.lost, c.mu.lostAt = nil, 0
	}
}

// Step does the next thing that is due at a time, and reports whether there was
// one: call it until it says no. What it did not finish because of an error or
// the end of ctx is done by a later Step.
func (c *Compactor) Step(ctx context.Context, now time.Time) (did bool, err error) {
	if err := c.lookAgain(ctx); err != nil {
		return false, err
	}
	if level, files := c.due(now); files != nil {
		return true, c.merge(ctx, level, files)
	}
	if now.Sub(c.pruned) >= pruneEvery {
		c.pruned = now
		_, err := c.Prune(ctx, now)
		c.notPruned(err)
		return false, err
	}
	return false, nil
}

// notPruned notes damage until Step asks the policy again; what passes is no alarm.
func (c *Compactor) notPruned(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.unpruned = nil; Broken(err) {
		c.mu.unpruned = err
	}
}

// lookAgain lists the levels where storing a file failed: it may be there, its
// answer alone was lost. By now more files may be due, and one of another range
// would be made beside it. (What goes to level 1 is stored again as it is.)
func (c *Compactor) lookAgain(ctx context.Context) error {
	for level := levels.First + 1; level <= levels.Snapshot; level++ {
		if err := c.lookAt(ctx, level); err != nil {
			return fmt.Errorf("look for files of level %d: %w", level, err)
		}
	}
	return nil
}

func (c *Compactor) lookAt(ctx context.Context, level levels.Level) error {
	c.mu.Lock()
	if !c.mu.unsure[level] {
		c.mu.Unlock()
		return nil
	}
	delete(c.mu.unsure, level) // before: storing may fail again meanwhile
	known, bad := c.mu.inv.clone(), maps.Clone(c.mu.bad)
	c.mu.Unlock()
	from := ltx.TXID(1)
	if level != levels.Snapshot {
		from = known.Max(level) + 1
	}
	for f, err := range c.cfg.Archive.Files(ctx, c.cfg.DB, level, from) {
		if err == nil && !known.has(f) && !bad[c.cfg.Archive.Key(c.cfg.DB, f)] {
			if f, err = c.cfg.Archive.Stamped(ctx, c.cfg.DB, f); err == nil {
				c.found(f)
			}
		}
		if err != nil {
			c.unsure(level)
			return err
		}
	}
	return nil
}

// unsure notes that a file of a level may be there that is not known.
func (c *Compactor) unsure(level levels.Level) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.unsure[level] = true
}

// found notes a file that was stored by a call that failed.
func (c *Compactor) found(f levels.File) {
	c.log.Info("file found that was stored without an answer", "level", int(f.Level), "min", f.Min, "max", f.Max)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.inv.Add(f)
}

// due returns the next file to make, and of what.
func (c *Compactor) due(now time.Time) (levels.Level, []levels.File) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for level := levels.First + 1; level <= c.cfg.Schedule.Top(); level++ {
		if files := Pick(c.mu.inv, level, c.cfg.Schedule, now); files != nil {
			return level, slices.Clone(files)
		}
	}
	return levels.Snapshot, PickSnapshot(c.mu.inv, c.cfg.Schedule, now)
}

// pruneEvery is how often a policy is asked.
const pruneEvery = 5 * time.Minute

// merge makes one file. An input that is damaged is read once more, and then
// passed over for good: the archive goes on without it.
func (c *Compactor) merge(ctx context.Context, level levels.Level, files []levels.File) error {
	inputs, total := Inputs(c.cfg.Archive, c.cfg.DB, files)
	_, _, err := c.store(ctx, level, inputs, total)
	fault, ok := errors.AsType[*InputError](err)
	if !ok || ctx.Err() != nil || !Broken(err) {
		return wrapped(level, err)
	}
	c.log.Warn("archive file cannot be used, reading it again", "file", fault.Name, "err", err)
	if _, _, err = c.store(ctx, level, inputs, total); err == nil {
		return nil
	}
	if fault, ok = errors.AsType[*InputError](err); !ok || ctx.Err() != nil || !Broken(err) {
		return wrapped(level, err)
	}
	c.passOver(files[fault.Index], err)
	return nil
}

func wrapped(level levels.Level, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("make a file of level %d: %w", level, err)
}

// passOver leaves a damaged file out of everything that is made from now on. It
// stays in the archive, for people to look at.
func (c *Compactor) passOver(f levels.File, err error) {
	c.reportDamage(f, err)
	c.mu.Lock()
	defer c.mu.Unlock()
	end := c.mu.inv.End().Max
	c.remove(f)
	switch {
	case f.Level == levels.First:
		c.mu.lost, c.mu.lostAt = err, max(c.mu.lostAt, f.Max)
	case !c.mu.inv.reaches(end): // a snapshot that StoreBase made is at no other level
		c.mu.lost, c.mu.lostAt = err, max(c.mu.lostAt, end)
	}
}

func (c *Compactor) reportDamage(f levels.File, err error) {
	c.log.Error("archive file is damaged, going on without it", "file", c.cfg.Archive.Key(c.cfg.DB, f), "err", err)
	if c.cfg.Metrics != nil {
		c.cfg.Metrics.Damaged(err)
	}
}

// remove takes a damaged file out of the inventory, under mu.
func (c *Compactor) remove(f levels.File) {
	c.mu.inv.Remove([]levels.File{f})
	c.mu.bad[c.cfg.Archive.Key(c.cfg.DB, f)] = true
}

// Prune deletes what the policy does not keep, the oldest first, once the
// snapshot that it rests on is known to be whole.
func (c *Compactor) Prune(ctx context.Context, now time.Time) (Verdict, error) {
	c.mu.Lock()
	v := Keep(c.mu.inv, c.cfg.Policy, now)
	verified := c.mu.verified[v.Anchor.Max]
	c.mu.Unlock()
	if len(v.Delete) == 0 {
		return v, nil
	}
	if !verified {
		if _, err := Inspect(ctx, c.cfg.Archive, c.cfg.DB, v.Anchor); err != nil {
			if Broken(err) {
				c.passOver(v.Anchor, err)
			}
			return v, fmt.Errorf("prune: verify the snapshot that deletions rest on: %w", err)
		}
		c.mu.Lock()
		c.mu.verified[v.Anchor.Max] = true
		c.mu.Unlock()
	}
	for len(v.Delete) > 0 {
		batch := v.Delete[:min(len(v.Delete), deleteBatch)]
		if err := c.cfg.Archive.Delete(ctx, c.cfg.DB, batch); err != nil {
			return v, fmt.Errorf("prune: %w", err)
		}
		c.mu.Lock()
		c.mu.inv.Remove(batch)
		c.mu.Unlock()
		c.log.Info("old archive files deleted", "files", len(batch), "covered_by", v.Anchor.Name())
		if c.cfg.Metrics != nil {
			c.cfg.Metrics.Deleted(batch)
		}
		v.Delete = v.Delete[len(batch):]
	}
	return v, nil
}

const deleteBatch = 1000
