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
	"sync/atomic"
	"time"

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
	Name        string `arg:"" name:"NAME" help:"The database's name; \".\" where URL is its folder itself."`
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
	v := newVerifier(a, c.Name, share)
	catalog, err := v.verify(ctx, c.Parallelism)
	if err != nil {
		return err
	}
	if catalog == nil {
		return notFound(ctx, a, c.Name)
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
	fmt.Fprintf(e.stdout, "%d files, %d read whole, %d problems\n", len(catalog.Files), v.read(catalog), len(v.problems))
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

	waited atomic.Bool // in vain, for a file to get its timestamp
	mu           sync.Mutex
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
		if len(catalog.Files) > 0 && !v.chains(catalog) || slices.EqualFunc(before, catalog.Files, sameFile) {
			break
		}
		before = catalog.Files
	}
	return catalog, nil
}

func sameFile(a, b restore.File) bool { return a.Level == b.Level && a.Min == b.Min && a.Max == b.Max }

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

// chains looks at files that follow one another, and for what is missing; found:
// something is.
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
		if last, first := stretches[i-1].Last, stretches[i].First; !told(holes, last, first) && pieces(catalog, last, first) {
			v.found(newest, true, "the points between TXID %s and %s cannot be restored", last, first)
		}
	}
	return slices.ContainsFunc(v.problems, func(p problem) bool { return p.chain })
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

func (v *verifier) sorted() []problem {
	slices.SortFunc(v.problems, func(a, b problem) int { return strings.Compare(a.Key+a.Reason, b.Key+b.Reason) })
	return v.problems
}

func (v *verifier) report(catalog *restore.Catalog) report {
	r := report{DB: v.db, Points: []points{}, Files: len(catalog.Files), Read: v.read(catalog), Problems: v.sorted()}
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
	return daemon.Exit(code, fmt.Errorf("archive of %s: %s found, %d problems", v.db, what, len(v.problems)), "nothing was changed; other points can still be restored; a full file (ltx-archive run asks for one) begins a new whole stretch")
}
