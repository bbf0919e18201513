package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
)

// Config of a [Restore]. Path is required, and one of Sources and Catalog.
type Config struct {
	Sources []Source
	Catalog *Catalog // of a moment ago, for the first plan: so its sources need not be listed again
	Target  Target
	Path    string // of the database; see [CheckOutput]
	Force   bool   // replace what is there
	// Check looks at the finished database before it gets its name, by
	// PRAGMA integrity_check for example; nil: nothing does.
	Check   func(ctx context.Context, path string) error
	Options Options
	// OnPlan is told each job before it runs; an error ends the restore.
	OnPlan func(*Job) error
	// OnTrouble is told of each file that was passed over, and why another plan
	// is tried.
	OnTrouble func(error)
}

// maxPlans bounds how often a plan is replaced.
const maxPlans = 20

// Restore brings the database at a target to cfg.Path and returns the job that
// did it. A file that turns out to be damaged is passed over where others lead
// to the same point: an older snapshot and a longer chain. A file that vanished
// since the listing (retention) makes it list again, and so does a gap: what is
// written while it lists may be in the listing or not. Errors: [*PlanError],
// [*TimeError], [*DamageError], [*ChainError], [*VerifyError], those of
// [CheckOutput], ErrBusy, and those of the sources.
func Restore(ctx context.Context, cfg Config) (*Job, error) {
	if err := CheckOutput(cfg.Path, cfg.Force); err != nil {
		return nil, err
	}
	r := &restorer{cfg: cfg, sources: cfg.Sources, catalog: cfg.Catalog}
	if r.catalog != nil {
		r.sources = r.catalog.Sources
	}
	for range maxPlans {
		job, err := r.once(ctx)
		if err == nil {
			return job, nil
		}
		if err = r.learn(ctx, job, err); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("gave up after %d plans: the archive changes too fast or is damaged in too many places", maxPlans)
}

// restorer remembers, from plan to plan, what not to use.
type restorer struct {
	cfg     Config
	sources []Source
	catalog *Catalog // not used yet; nil: list again
	bad     []File
	damage  error // why the newest of bad is there
	resumed bool  // a resumed output was wrong once

	listed []File // by the last plan
	gap    []File // the listing in which there was a gap last
	gaps   int
}

// maxGaps bounds how often a gap makes it list again.
const maxGaps = 3

func (r *restorer) once(ctx context.Context) (*Job, error) {
	catalog := r.catalog
	if r.catalog = nil; catalog == nil {
		var err error
		if catalog, err = Read(ctx, r.sources...); err != nil {
			return nil, err
		}
	}
	r.listed = catalog.Files
	to, err := catalog.Resolve(ctx, r.cfg.Target)
	if err != nil {
		return nil, err
	}
	good := &Catalog{Sources: r.sources, Files: slices.DeleteFunc(slices.Clone(catalog.Files), func(f File) bool {
		return slices.ContainsFunc(r.bad, func(b File) bool { return sameFile(f, b) })
	})}
	job, err := good.Prepare(ctx, to, r.cfg.Options)
	if err != nil {
		if _, ok := errors.AsType[*PlanError](err); ok && r.damage != nil {
			err = fmt.Errorf("%w; no way around: %w", r.damage, err)
		}
		return nil, err
	}
	if r.cfg.OnPlan != nil {
		if err := r.cfg.OnPlan(job); err != nil {
			return nil, err
		}
	}
	return job, job.Run(ctx, r.cfg.Path, r.cfg.Force, r.cfg.Check)
}

func sameFile(a, b File) bool {
	return a.Source == b.Source && a.Is(b.File)
}

// learn decides whether another plan may do better after err; nil: it may.
func (r *restorer) learn(ctx context.Context, job *Job, err error) error {
	if ctx.Err() != nil {
		return err
	}
	if verify, ok := errors.AsType[*VerifyError](err); ok {
		if verify.Resumed && !r.resumed {
			r.resumed = true
			r.tell(err)
			return nil
		}
		if found := job.verifyFiles(ctx); found != nil {
			err = found
		}
	}
	if damage, ok := errors.AsType[*DamageError](err); ok && !errors.Is(err, r.damage) {
		r.bad, r.damage = append(r.bad, damage.File), damage
		r.tell(err)
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) || r.mayClose(err) {
		r.tell(err)
		return nil
	}
	return err
}

// mayClose reports whether err is a gap that was not there the last time.
func (r *restorer) mayClose(err error) bool {
	plan, ok := errors.AsType[*PlanError](err)
	if !ok || plan.Want == 0 || plan.Behind || plan.Inside || r.gaps == maxGaps || slices.EqualFunc(r.listed, r.gap, sameFile) {
		return false
	}
	r.gap, r.gaps = r.listed, r.gaps+1
	return true
}

func (r *restorer) tell(err error) {
	if r.cfg.OnTrouble != nil {
		r.cfg.OnTrouble(err)
	}
}

// Points are the TXIDs that a catalog leads to: the first and the last of each
// stretch without a gap.
type Points struct{ First, Last ltx.TXID }

// Stretches returns where every recorded point can be reached, in order. Between
// two stretches files are missing: they were lost, or retention deleted them and
// kept the snapshot before.
func (c *Catalog) Stretches() (all []Points) {
	sorted := sortedByMin(c.Files)
	for _, base := range slices.Backward(bases(sorted, ltx.TXID(1<<64-1))) {
		n := len(all)
		if n > 0 && base.Max <= all[n-1].Last {
			continue
		}
		end := last(follow(sorted, base, ltx.TXID(1<<64-1)))
		// The very next transaction, as a whole; or merged from all since TXID 1.
		if n > 0 && (base.Max == all[n-1].Last+1 || base.Level != levels.Snapshot) {
			all[n-1].Last = end
			continue
		}
		all = append(all, Points{First: base.Max, Last: end})
	}
	return all
}
