package generations

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore"
)

// Config of a [Restore]. Store, DB and Path are required.
type Config struct {
	Store  objstore.Store
	DB     string // the database's name in the archive
	Target Target
	Path   string // of the database; see [restore.CheckOutput]
	Force  bool   // replace what is there
	// Check looks at the finished database before it gets its name; nil: nothing
	// does.
	Check   func(ctx context.Context, path string) error
	Options restore.Options
	// OnPlan is told each plan before it is carried out; an error ends the restore.
	OnPlan func(*Plan) error
	// OnTrouble is told what was passed over: a damaged snapshot, an object that was
	// deleted since the listing, frames behind the last commit.
	OnTrouble func(error)
}

// Result is what a restore made.
type Result struct {
	*Plan
	Index  Index // up to which
	Offset int64 // of the WAL, in bytes
	Size   int64 // of the database, bytes
}

// maxPlans bounds how often a plan is replaced.
const maxPlans = 20

// Restore makes the database at a target. A snapshot that turns out to be damaged
// is passed over where an older one leads to the same point. An object that
// vanished since the listing (retention) makes it list again. A restore that ends
// early leaves nothing. Errors: [*TargetError], [*GapError], [*levels.DamageError],
// those of [restore.CheckOutput], [restore.ErrBusy], and those of the store.
func Restore(ctx context.Context, cfg Config) (*Result, error) {
	if err := restore.CheckOutput(cfg.Path, cfg.Force); err != nil {
		return nil, err
	}
	if cfg.OnTrouble == nil {
		cfg.OnTrouble = func(error) {}
	}
	r := &restorer{cfg: cfg, target: cfg.Target}
	for range maxPlans {
		result, err := r.once(ctx)
		if err == nil {
			return result, nil
		}
		if err = r.learn(ctx, result, err); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("gave up after %d plans: %w", maxPlans, r.last)
}

// restorer remembers, from plan to plan, what not to use.
type restorer struct {
	cfg    Config
	target Target
	bad    []string // keys of snapshots
	damage error    // of the last one
	last   error    // why the newest plan failed
}

// once carries out one plan. With an error, too, the result has the plan, if there
// was one.
func (r *restorer) once(ctx context.Context) (*Result, error) {
	all, err := Read(ctx, r.cfg.Store, r.cfg.DB)
	if err != nil {
		return nil, err
	}
	for i := range all {
		all[i].Snapshots = slices.DeleteFunc(all[i].Snapshots, func(s Snapshot) bool { return slices.Contains(r.bad, s.Key) })
	}
	plan, err := Find(all, r.target)
	if err != nil {
		if r.damage != nil {
			err = fmt.Errorf("%w; no way around: %w", r.damage, err)
		}
		return nil, err
	}
	result := &Result{Plan: plan, Index: plan.Snapshot.Index}
	if r.cfg.OnPlan != nil {
		if err := r.cfg.OnPlan(plan); err != nil {
			return nil, err
		}
	}
	return result, r.write(ctx, result)
}

// write makes the output, or leaves nothing.
func (r *restorer) write(ctx context.Context, result *Result) (err error) {
	out, err := restore.NewOutput(r.cfg.Path, r.cfg.Force)
	if err != nil {
		return fmt.Errorf("restore to %s: %w", r.cfg.Path, err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if err := r.fill(ctx, out, result); err != nil {
		return errors.Join(err, out.Discard())
	}
	if err := out.Finish(ctx, r.cfg.Check); err != nil {
		return errors.Join(err, out.Discard())
	}
	return nil
}

// fill writes the snapshot and applies the WALs.
func (r *restorer) fill(ctx context.Context, out *restore.Output, result *Result) (err error) {
	f := download(ctx, r.cfg.Store, result.Objects(), r.cfg.Options)
	defer f.close()
	c := newContents(f)
	db, err := newDatabase(c, result.Snapshot, out)
	if err != nil {
		return err
	}
	db.open.dir = filepath.Dir(r.cfg.Path)
	defer func() { err = errors.Join(err, db.open.close()) }()
	for segments, next := range wals(result.Segments, result.next) {
		w := &walReader{contents: c, generation: result.Generation, segments: segments}
		t, err := w.scan(db.pageSize, db.frame)
		if err == nil {
			err = w.check(t, next)
		}
		if err == nil {
			err = db.endWAL()
		}
		if err != nil {
			return err
		}
		if t.unfit != nil {
			r.cfg.OnTrouble(fmt.Errorf("%w; nothing follows, so it is left out", w.damage(t.segment, t.unfit)))
		}
		result.Index, result.Offset = segments[0].Index, t.offset
	}
	st, err := out.File.Stat()
	if err == nil {
		result.Size = st.Size()
	}
	return err
}

// learn decides whether another plan may do better after err; nil: it may.
func (r *restorer) learn(ctx context.Context, result *Result, err error) error {
	if ctx.Err() != nil || result == nil {
		return err
	}
	damage, damaged := errors.AsType[*levels.DamageError](err)
	_, gone := errors.AsType[*goneError](err)
	switch {
	case damaged && damage.Key == result.Snapshot.Key:
		r.bad, r.damage = append(r.bad, damage.Key), damage
		r.target.Generation = result.Generation // the same point, or none
	case gone:
	default:
		return err
	}
	r.last = err
	r.cfg.OnTrouble(err)
	return nil
}
