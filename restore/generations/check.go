package generations

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore"
)

// CheckConfig of a [Check]. Store, DB and Whole are required.
type CheckConfig struct {
	Store objstore.Store
	DB    string
	// Whole says which objects are read: by the key of a snapshot, or by that of the
	// first segment of a WAL, which is read as a whole.
	Whole       func(key string) bool
	Parallelism int // default [restore.DefaultParallelism]
}

// Problem is something that is wrong with a generation.
type Problem struct {
	Key    string // where it shows
	Reason string
	Gap    bool // something is missing; else it is damaged
}

// Report is what a check found.
type Report struct {
	Generations []Generation
	Read        int // objects
	Problems    []Problem
}

// Check looks for what is missing in all generations of a database, and reads the
// objects that it is told to: whether they can be decompressed, and whether the
// checksums of the WALs hold. A segment that is missing at the end of a WAL shows
// only where it held the end of a transaction: nothing tells how long a WAL was.
func Check(ctx context.Context, cfg CheckConfig) (*Report, error) {
	if cfg.Parallelism <= 0 {
		cfg.Parallelism = restore.DefaultParallelism
	}
	all, err := Read(ctx, cfg.Store, cfg.DB)
	if err != nil {
		return nil, err
	}
	c := &checker{cfg: cfg}
	if err := c.read(ctx, all); err != nil {
		return nil, err
	}
	if len(c.gone) > 0 { // by retention, perhaps
		if all, err = Read(ctx, cfg.Store, cfg.DB); err != nil {
			return nil, err
		}
		c.stillListed(all)
	}
	for i := range all {
		c.gaps(&all[i])
	}
	slices.SortFunc(c.problems, func(a, b Problem) int { return strings.Compare(a.Key+a.Reason, b.Key+b.Reason) })
	return &Report{Generations: all, Read: c.done, Problems: slices.Compact(c.problems)}, nil // names and content may tell the same
}

type checker struct {
	cfg CheckConfig

	mu       sync.Mutex
	done     int      // objects
	gone     []string // keys
	problems []Problem
}

// read reads what is to be read, several snapshots and WALs at a time.
func (c *checker) read(ctx context.Context, all []Generation) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.cfg.Parallelism)
	whole := func(objects []Object, read func(*contents) error) {
		if c.cfg.Whole(objects[0].Key) {
			g.Go(func() error { return c.one(ctx, objects, read) })
		}
	}
	for _, gen := range all {
		for _, s := range gen.Snapshots {
			whole([]Object{s.Object}, func(r *contents) error { return readSnapshot(r, s) })
		}
		for segments, next := range wals(gen.reachable(), nil) {
			var objects []Object
			for _, s := range segments {
				objects = append(objects, s.Object)
			}
			whole(objects, func(r *contents) error {
				return readWAL(&walReader{contents: r, generation: gen.Name, segments: segments}, next)
			})
		}
	}
	return g.Wait()
}

// one reads a snapshot or a WAL and notes what is wrong with it.
func (c *checker) one(ctx context.Context, objects []Object, read func(*contents) error) error {
	f := download(ctx, c.cfg.Store, objects, restore.Options{Parallelism: 1})
	defer f.close()
	err := read(newContents(f))
	c.mu.Lock()
	defer c.mu.Unlock()
	damage, damaged := errors.AsType[*levels.DamageError](err)
	gap, missing := errors.AsType[*GapError](err)
	gone, vanished := errors.AsType[*goneError](err)
	switch {
	case ctx.Err() != nil:
		return err
	case damaged:
		c.problems = append(c.problems, Problem{Key: damage.Key, Reason: damage.Err.Error()})
	case missing:
		c.problems = append(c.problems, Problem{Key: gap.Found.Key, Reason: gap.Error(), Gap: true})
	case vanished:
		c.gone = append(c.gone, gone.key)
		return nil
	case err != nil:
		return err
	}
	c.done += len(objects)
	return nil
}

// stillListed notes what cannot be read although it is there.
func (c *checker) stillListed(all []Generation) {
	for _, g := range all {
		for _, o := range g.Objects() {
			if slices.Contains(c.gone, o.Key) {
				c.problems = append(c.problems, Problem{Key: o.Key, Reason: "it is listed, and cannot be read: there is no such object"})
			}
		}
	}
}

// gaps notes what names tell to be missing.
func (c *checker) gaps(g *Generation) {
	if len(g.Snapshots) == 0 {
		c.problems = append(c.problems, Problem{Key: g.Segments[0].Key, Reason: "nothing of its generation can be restored: there is no snapshot", Gap: true})
		return
	}
	for _, gap := range gaps(g.Name, g.Snapshots[0].Index, g.reachable()) {
		c.problems = append(c.problems, Problem{Key: gap.Found.Key, Reason: gap.Error(), Gap: true})
	}
}

func readSnapshot(c *contents, s Snapshot) error {
	_, err := copySnapshot(c, s, io.Discard)
	return err
}

func readWAL(r *walReader, next *Segment) error {
	t, err := r.scan(0, func([]byte, wal.FrameHeader) error { return nil })
	if err == nil {
		err = r.check(t, next)
	}
	if err == nil && t.unfit != nil {
		err = r.damage(t.segment, fmt.Errorf("%w; a restore leaves out what is behind the last commit", t.unfit))
	}
	return err
}
