package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/superfly/ltx"
	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore"
)

// ends are what header and trailer of a file say; zero: it is damaged.
type ends struct {
	pre, post ltx.Checksum
	pageSize  uint32
	whole     bool // it was read whole
}

type verifier struct {
	a     *levels.Archive
	db    string
	share share

	older                 []generationListing
	olderFiles, olderRead int

	waited   atomic.Bool // in vain, for a file to get its timestamp
	mu       sync.Mutex
	ends     map[string]ends // by key, of what was looked at
	gone     []levels.File   // listed, and not there any more
	problems []problem
}

func newVerifier(a *levels.Archive, db string, share share) *verifier {
	return &verifier{a: a, db: db, share: share, ends: map[string]ends{}}
}

// maxLooks bounds how often an archive that changes is listed again.
const maxLooks = 10

// verify looks at all files and at what leads from one to the next. What is
// missed may be in a file that was written while it listed or looked: before it
// says so it lists again, until nothing changes, and looks at what is new. No
// files: nil.
func (v *verifier) verify(ctx context.Context, parallelism int) (catalog *restore.Catalog, err error) {
	var before []restore.File
	for range maxLooks {
		if catalog, err = restore.Read(ctx, restore.Of(v.a, v.db)); err != nil || len(catalog.Files) == 0 {
			return nil, err
		}
		v.problems = slices.DeleteFunc(v.problems, func(p problem) bool { return p.chain })
		if err := v.files(ctx, catalog, parallelism); err != nil {
			return nil, err
		}
		if len(catalog.Files) == 0 { // all of them are gone
			continue
		}
		if err := v.strangers(ctx, catalog); err != nil {
			return nil, err
		}
		if !v.chains(catalog) || slices.EqualFunc(before, catalog.Files, sameFile) {
			break
		}
		before = catalog.Files
	}
	return catalog, nil
}

func sameFile(a, b restore.File) bool { return a.Is(b.File) }

func (v *verifier) found(f levels.File, chain bool, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if p := (problem{Key: v.a.Key(v.db, f), Reason: fmt.Sprintf(format, args...), chain: chain}); !slices.Contains(v.problems, p) {
		v.problems = append(v.problems, p)
	}
}

// files looks at each file by itself that it has not seen. What was deleted
// meanwhile, as retention does, leaves the catalog: whether it is missed shows in
// the chains.
func (v *verifier) files(parent context.Context, catalog *restore.Catalog, parallelism int) error {
	v.gone = nil
	g, ctx := errgroup.WithContext(parent)
	g.SetLimit(max(parallelism, 1))
	for _, f := range catalog.Files {
		if _, seen := v.look(f.File); seen {
			continue
		}
		g.Go(func() error {
			err := v.file(ctx, f.File)
			switch {
			case ctx.Err() != nil:
			case levels.IsGone(err):
				v.vanished(f.File)
				return nil
			case damaged(err):
				v.found(f.File, false, "%v", err)
				v.keep(f.File, ends{})
				return nil
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return v.forget(parent, catalog)
}

func damaged(err error) bool {
	_, ok := errors.AsType[*levels.DamageError](err)
	return ok || errors.Is(err, ltxfile.ErrDamaged)
}

func (v *verifier) vanished(f levels.File) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.gone = append(v.gone, f)
}

// forget removes from the catalog what vanished, unless the store lists it
// still.
func (v *verifier) forget(ctx context.Context, catalog *restore.Catalog) error {
	for _, f := range v.gone {
		for again, err := range v.a.Files(ctx, v.db, f.Level, f.Min) {
			if err != nil {
				return err
			}
			if again.Min == f.Min && again.Max == f.Max {
				v.found(f, false, "it is listed, and cannot be read: there is no such object")
			}
			if again.Min > f.Min {
				break
			}
		}
	}
	catalog.Files = slices.DeleteFunc(catalog.Files, func(f restore.File) bool { return slices.Contains(v.gone, f.File) })
	return nil
}

func (v *verifier) file(ctx context.Context, f levels.File) error {
	hdr, err := v.a.Header(ctx, v.db, f)
	if err != nil {
		return err
	}
	t, err := v.a.Trailer(ctx, v.db, f)
	if err != nil {
		return err
	}
	if err := v.timestamp(ctx, f, hdr); err != nil {
		return err
	}
	e := ends{pre: hdr.PreApplyChecksum, post: t.PostApplyChecksum, pageSize: hdr.PageSize, whole: v.share(v.a.Key(v.db, f))}
	if e.whole {
		if _, err := compactor.Inspect(ctx, v.a, v.db, f); err != nil {
			return err
		}
	}
	v.keep(f, e)
	return nil
}

func (v *verifier) keep(f levels.File, e ends) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ends[v.a.Key(v.db, f)] = e
}

func (v *verifier) look(f levels.File) (e ends, seen bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, seen = v.ends[v.a.Key(v.db, f)]
	return e, seen
}

// read is how many files of a catalog were read whole.
func (v *verifier) read(catalog *restore.Catalog) (n int) {
	for _, f := range catalog.Files {
		if e, _ := v.look(f.File); e.whole {
			n++
		}
	}
	return n
}

// timestamp holds what the store says against the header.
func (v *verifier) timestamp(ctx context.Context, f levels.File, hdr ltx.Header) error {
	t := f.Timestamp
	if !agree(t, f.Coarse, hdr) && !v.waited.Load() {
		var err error
		if t, err = v.settled(ctx, f, hdr); err != nil {
			return err
		}
	}
	if !agree(t, f.Coarse, hdr) {
		v.found(f, false, "its metadata says %s, its header %s: restores by time follow the header", t.Format(ltx.RFC3339Milli), restore.TimeOf(hdr).Format(ltx.RFC3339Milli))
	}
	return nil
}

func agree(t time.Time, coarse time.Duration, hdr ltx.Header) bool {
	late := hdr.Timestamp - t.UnixMilli()
	return t.IsZero() || late >= 0 && late <= coarse.Milliseconds()
}

// In a directory Litestream gives a file its name before its time, with a sync
// between them. Until then it has the time of its writing.
const (
	settleYoung = 10 * time.Second // a file of that age may get another time
	settleTries = 20
	settlePause = 100 * time.Millisecond
)

// settled asks for the timestamp of a file until it is that of the header, and
// returns the last answer. It does so for two seconds at most, where the file is
// young; once that was in vain nobody waits any more: the files were copied.
func (v *verifier) settled(ctx context.Context, f levels.File, hdr ltx.Header) (time.Time, error) {
	for try := 1; ; try++ {
		info, err := v.a.Store().Stat(ctx, v.a.Key(v.db, f))
		if err != nil || agree(info.Timestamp, info.Coarse, hdr) {
			return info.Timestamp, err
		}
		if time.Since(info.Timestamp) > settleYoung || v.waited.Load() {
			return info.Timestamp, nil
		}
		if try == settleTries {
			v.waited.Store(true)
			return info.Timestamp, nil
		}
		select {
		case <-ctx.Done():
			return time.Time{}, context.Cause(ctx)
		case <-time.After(settlePause):
		}
	}
}

// chains looks at files that follow one another, and for what is missing, and
// reports whether it found a fault.
func (v *verifier) chains(catalog *restore.Catalog) (found bool) {
	ofLevel := map[levels.Level][]levels.File{}
	for _, f := range catalog.Files {
		ofLevel[f.Level] = append(ofLevel[f.Level], f.File)
	}
	for level, files := range ofLevel {
		if level == levels.Snapshot {
			continue
		}
		for i := 1; i < len(files); i++ {
			v.follows(files[i-1], files[i])
		}
	}
	holes := v.holes(slices.Concat(ofLevel[levels.Stream], ofLevel[levels.First]), ofLevel[levels.Snapshot])
	stretches := catalog.Stretches()
	newest := catalog.Newest()
	switch n := len(stretches); {
	case n == 0:
		v.found(newest, true, "nothing can be restored: there is no file of a whole database")
	case stretches[n-1].Last < newest.Max && !told(holes, stretches[n-1].Last, newest.Max):
		v.found(newest, true, "it cannot be reached: the last point is TXID %s", stretches[n-1].Last)
	}
	for i := 1; i < len(stretches); i++ {
		if last, first := stretches[i-1].Last, stretches[i].First; !told(holes, last, first) && pieces(catalog, last, first) {
			v.found(newest, true, "the points between TXID %s and %s cannot be restored", last, first)
		}
	}
	return slices.ContainsFunc(v.problems, func(p problem) bool { return p.chain })
}

// strangers looks for files of another writer: those of ltx-archive tell the
// checksum of the database, in the file or its metadata. Older ones without any may
// be of Litestream, from before ltx-archive went on there. The first is enough.
func (v *verifier) strangers(ctx context.Context, catalog *restore.Catalog) error {
	var since ltx.TXID // the end of the first file with a checksum
	for _, f := range catalog.Files {
		if e, _ := v.look(f.File); e.post != 0 && (since == 0 || f.Max < since) {
			since = f.Max
		}
	}
	for _, f := range catalog.Files {
		if e, _ := v.look(f.File); since == 0 || f.Min <= since || e.pageSize == 0 || e.post != 0 {
			continue
		}
		post, err := compactor.PostOf(ctx, v.a, v.db, f.File)
		switch {
		case levels.IsGone(err):
		case err != nil:
			return err
		case post == 0:
			v.found(f.File, true, "it tells no checksum of the database, and files of older transactions do: something else writes to this place, Litestream for example")
			return nil
		}
	}
	return nil
}

// holes are where files of level 1 (and of level 0, where Litestream left some)
// are missing: the points inside are lost, even where a higher level leads across.
// Where level 1 goes on behind a snapshot of the very next transaction none is.
func (v *verifier) holes(first, snapshots []levels.File) (holes []points) {
	slices.SortFunc(first, func(a, b levels.File) int { return cmp.Compare(a.Min, b.Min) })
	var last ltx.TXID
	for i, f := range first {
		next := last + 1
		if slices.ContainsFunc(snapshots, func(s levels.File) bool { return s.Max == next }) {
			next++
		}
		if i > 0 && f.Min > next {
			holes = append(holes, points{last, f.Min - 1})
			v.found(f, true, "a file is missing before it: the points behind TXID %s and before %s cannot be restored", last, f.Min-1)
		}
		last = max(last, f.Max)
	}
	return holes
}

// told reports whether a gap between two points is a hole that was found.
func told(holes []points, last, first ltx.TXID) bool {
	return slices.ContainsFunc(holes, func(h points) bool { return h.First <= first && h.Last >= last })
}

// pieces reports whether there is something of what lies between two points.
// Where nothing is, retention kept the snapshot at the first and no more.
func pieces(catalog *restore.Catalog, last, first ltx.TXID) bool {
	return slices.ContainsFunc(catalog.Files, func(f restore.File) bool { return !f.IsBase() && f.Min > last && f.Max <= first })
}

func (v *verifier) follows(prev, next levels.File) {
	a, _ := v.look(prev)
	b, _ := v.look(next)
	switch {
	case a.pageSize == 0 || b.pageSize == 0 || next.Min != prev.Max+1: // damaged, or not in a row
	case a.pageSize != b.pageSize:
		v.found(next, true, "page size %d after %d", b.pageSize, a.pageSize)
	case a.post != 0 && b.pre != 0 && a.post != b.pre:
		v.found(next, true, "it begins at checksum %s, the file before it ends at %s", b.pre, a.post)
	}
}
