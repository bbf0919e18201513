package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/ltxstream/ltxstream/internal/daemon"
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
	v := newVerifier(a, c.Name, share)
	catalog, err := v.verify(ctx, c.Parallelism)
	if err != nil {
		return err
	}
	if err := v.verifyOlder(ctx, c.Parallelism); err != nil {
		return err
	}
	if catalog == nil && len(v.older) == 0 {
		return notFound(ctx, a, c.Name)
	}
	if catalog == nil {
		catalog = &restore.Catalog{}
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
	fmt.Fprintf(e.stdout, "%d files, %d read whole, %d problems\n", len(catalog.Files)+v.olderFiles, v.read(catalog)+v.olderRead, len(v.problems))
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

func (v *verifier) sorted() []problem {
	slices.SortFunc(v.problems, func(a, b problem) int { return strings.Compare(a.Key+a.Reason, b.Key+b.Reason) })
	return v.problems
}

func (v *verifier) report(catalog *restore.Catalog) report {
	r := report{
		DB: v.db, Points: []points{}, Files: len(catalog.Files) + v.olderFiles, Read: v.read(catalog) + v.olderRead,
		Problems: v.sorted(), Generations: v.older,
	}
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
