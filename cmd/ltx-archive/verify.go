package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/superfly/ltx"
	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore"
)

type verifyCmd struct {
	URL         string `arg:"" name:"URL" help:"The archive."`
	Name        string `arg:"" name:"NAME" help:"The database's name."`
	ReadData    string `name:"read-data" env:"-" noconfig:"" default:"none" placeholder:"SHARE" help:"Read whole files too: none, full, n/t (the n-th of t parts, one after the other on different days), or a random share such as 10%."`
	Parallelism int    `name:"parallelism" default:"8" help:"Requests at a time."`
	JSON        bool   `name:"json" env:"-" noconfig:"" help:"Print JSON."`
}

// problem is something that is wrong with an archive.
type problem struct {
	Key    string `json:"key"`
	Reason string `json:"reason"`
	chain  bool   // files do not follow one another; else damage
}

// report is what a verification found.
type report struct {
	DB       string    `json:"db"`
	Points   []points  `json:"points"`
	Files    int       `json:"files"`
	Read     int       `json:"read"` // files that were read whole
	Problems []problem `json:"problems"`
	// Generations are what Litestream 0.3 left there.
	Generations []generationListing `json:"generations,omitempty"`
}

// Run verifies.
func (c *verifyCmd) Run(ctx context.Context, e *env) error {
	share, err := parseShare(c.ReadData)
	if err != nil {
		return daemon.Exit(daemon.ExitUsage, err, "nothing was done")
	}
	if err := checkName(c.Name); err != nil {
		return err
	}
	a, closeAll, err := e.reader(ctx, c.URL)
	if err != nil {
		return err
	}
	defer closeAll()
	catalog, err := restore.Read(ctx, restore.Of(a, c.Name))
	if err != nil {
		return err
	}
	v := &verifier{a: a, db: c.Name, share: share, ends: map[levels.File]ends{}}
	if err := v.verifyOlder(ctx, c.Parallelism); err != nil {
		return err
	}
	if len(catalog.Files) == 0 && len(v.older) == 0 {
		return daemon.Exit(daemon.ExitNotFound, fmt.Errorf("archive %s has no files of database %q", a, c.Name), "see which databases there are: ltx-archive ls URL")
	}
	if err := v.files(ctx, catalog, c.Parallelism); err != nil {
		return err
	}
	if len(catalog.Files) > 0 {
		v.chains(catalog)
	}
	if c.JSON {
		if err := daemon.PrintJSON(e.stdout, v.report(catalog)); err != nil {
			return err
		}
		return v.verdict()
	}
	for _, p := range v.sorted() {
		fmt.Fprintf(e.stdout, "%s: %s\n", p.Key, p.Reason)
	}
	for _, s := range catalog.Stretches() {
		fmt.Fprintf(e.stdout, "%s: restorable from TXID %s to %s\n", c.Name, s.First, s.Last)
	}
	for _, g := range v.older {
		fmt.Fprintf(e.stdout, "%s: generation %s: %s\n", c.Name, g.Name, g.reach())
	}
	fmt.Fprintf(e.stdout, "%d files, %d read whole, %d problems\n", len(catalog.Files)+v.olderFiles, v.read, len(v.problems))
	return v.verdict()
}

// share says which files are read whole.
type share func(key string) bool

func parseShare(text string) (share, error) {
	bad := fmt.Errorf("--read-data %q: want none, full, n/t such as 2/7, or a percentage such as 10%%", text)
	switch text {
	case "none", "":
		return func(string) bool { return false }, nil
	case "full":
		return func(string) bool { return true }, nil
	}
	if percent, ok := strings.CutSuffix(text, "%"); ok {
		p, err := strconv.ParseFloat(percent, 64)
		if err != nil || !(p >= 0 && p <= 100) { // NaN is neither
			return nil, bad
		}
		return func(string) bool { return rand.Float64()*100 < p }, nil
	}
	left, right, ok := strings.Cut(text, "/")
	n, err1 := strconv.ParseUint(left, 10, 32)
	t, err2 := strconv.ParseUint(right, 10, 32)
	if !ok || err1 != nil || err2 != nil || n < 1 || n > t {
		return nil, bad
	}
	return func(key string) bool {
		h := fnv.New64a()
		_, _ = h.Write([]byte(key)) // never fails
		return h.Sum64()%t == n-1
	}, nil
}

// ends are what header and trailer of a file say.
type ends struct {
	pre, post ltx.Checksum
	pageSize  uint32
}

type verifier struct {
	a     *levels.Archive
	db    string
	share share

	older      []generationListing
	olderFiles int

	mu       sync.Mutex
	ends     map[levels.File]ends
	read     int
	gone     []levels.File // listed, and not there any more
	problems []problem
}

func (v *verifier) found(f levels.File, chain bool, format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.problems = append(v.problems, problem{Key: v.a.Key(v.db, f), Reason: fmt.Sprintf(format, args...), chain: chain})
}

// files looks at each file by itself. What was deleted meanwhile, as retention
// does, leaves the catalog: whether it is missed shows in the chains.
func (v *verifier) files(parent context.Context, catalog *restore.Catalog, parallelism int) error {
	g, ctx := errgroup.WithContext(parent)
	g.SetLimit(max(parallelism, 1))
	for _, f := range catalog.Files {
		g.Go(func() error {
			err := v.file(ctx, f.File)
			switch {
			case ctx.Err() != nil:
			case levels.IsGone(err):
				v.vanished(f.File)
				return nil
			case damaged(err):
				v.found(f.File, false, "%v", err)
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
	v.timestamp(f, hdr)
	e := ends{pre: hdr.PreApplyChecksum, post: t.PostApplyChecksum, pageSize: hdr.PageSize}
	whole := v.share(v.a.Key(v.db, f))
	if whole {
		if _, err := compactor.Inspect(ctx, v.a, v.db, f); err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.ends[f] = e
	if whole {
		v.read++
	}
	return nil
}

// timestamp holds what the store says against the header.
func (v *verifier) timestamp(f levels.File, hdr ltx.Header) {
	if f.Timestamp.IsZero() {
		return
	}
	if ms := hdr.Timestamp - f.Timestamp.UnixMilli(); ms < 0 || ms > f.Coarse.Milliseconds() {
		v.found(f, false, "its metadata says %s, its header %s: restores by time follow the header", f.Timestamp.Format(ltx.RFC3339Milli), restore.TimeOf(hdr).Format(ltx.RFC3339Milli))
	}
}

// chains looks at files that follow one another, and for what is missing.
func (v *verifier) chains(catalog *restore.Catalog) {
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
	holes := v.holes(ofLevel[levels.First])
	stretches := catalog.Stretches()
	newest := catalog.Files[0].File
	for _, f := range catalog.Files {
		if f.Max > newest.Max {
			newest = f.File
		}
	}
	switch n := len(stretches); {
	case n == 0:
		v.found(newest, true, "nothing can be restored: there is no file of a whole database")
	case stretches[n-1].Last < newest.Max && !told(holes, stretches[n-1].Last, newest.Max):
		v.found(newest, true, "it cannot be reached: the last point is TXID %s", stretches[n-1].Last)
	}
	for i := 1; i < len(stretches); i++ {
		if last, first := stretches[i-1].Last, stretches[i].First; !told(holes, last, first) {
			v.found(newest, true, "the points between TXID %s and %s cannot be restored", last, first)
		}
	}
}

// holes are where files of level 1 are missing: the points inside are lost, even
// where a higher level leads across.
func (v *verifier) holes(first []levels.File) (holes []points) {
	var last ltx.TXID
	for i, f := range first {
		if i > 0 && f.Min > last+1 {
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

func (v *verifier) follows(prev, next levels.File) {
	a, okA := v.ends[prev]
	b, okB := v.ends[next]
	switch {
	case !okA || !okB || next.Min != prev.Max+1:
	case a.pageSize != b.pageSize:
		v.found(next, true, "page size %d after %d", b.pageSize, a.pageSize)
	case a.post != 0 && b.pre != 0 && a.post != b.pre:
		v.found(next, true, "it begins at checksum %s, the file before it ends at %s", b.pre, a.post)
	}
}

func (v *verifier) sorted() []problem {
	slices.SortFunc(v.problems, func(a, b problem) int { return strings.Compare(a.Key+a.Reason, b.Key+b.Reason) })
	return v.problems
}

func (v *verifier) report(catalog *restore.Catalog) report {
	r := report{DB: v.db, Points: []points{}, Files: len(catalog.Files) + v.olderFiles, Read: v.read, Problems: v.sorted(), Generations: v.older}
	for _, s := range catalog.Stretches() {
		r.Points = append(r.Points, points(s))
	}
	return r
}

// verdict is the exit code: damage before gaps.
func (v *verifier) verdict() error {
	if len(v.problems) == 0 {
		return nil
	}
	code, what := daemon.ExitGap, "gaps"
	for _, p := range v.problems {
		if !p.chain {
			code, what = daemon.ExitUnverified, "damage"
		}
	}
	next := "nothing was changed; other points can still be restored"
	if len(v.ends) > 0 {
		next += "; a full file (ltx-archive run asks for one) begins a new whole stretch"
	}
	return daemon.Exit(code, fmt.Errorf("archive of %s: %s found, %d problems", v.db, what, len(v.problems)), next)
}
