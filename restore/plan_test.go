package restore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
)

// at reads "9:1-40" as a file.
func at(specs ...string) (files []File) {
	for _, spec := range specs {
		var f levels.File
		if _, err := fmt.Sscanf(spec, "%d:%d-%d", &f.Level, &f.Min, &f.Max); err != nil {
			panic(spec)
		}
		files = append(files, File{File: f})
	}
	return files
}

func text(files []File) string {
	var all []string
	for _, f := range files {
		all = append(all, fmt.Sprintf("%d:%d-%d", f.Level, f.Min, f.Max))
	}
	return strings.Join(all, " ")
}

func TestPlan(t *testing.T) {
	t.Parallel()
	archive := at("9:1-10", "9:1-30", "1:1-5", "1:6-10", "1:11-12", "1:13-20", "1:21-30", "1:31-33", "1:34-40", "2:1-20", "2:21-30", "0:41-41", "0:42-42")
	for name, c := range map[string]struct {
		files []File
		to    ltx.TXID
		want  string
		fault *PlanError
	}{
		"snapshot alone":           {archive, 30, "9:1-30", nil},
		"newest snapshot and more": {archive, 42, "9:1-30 1:31-33 1:34-40 0:41-41 0:42-42", nil},
		"the larger level":         {archive, 20, "2:1-20", nil},
		"older snapshot":           {archive, 12, "9:1-10 1:11-12", nil},
		"first file is a base":     {archive, 5, "1:1-5", nil},
		"inside a file":            {archive, 11, "", &PlanError{Want: 11, Reached: 10, Next: 12, Inside: true}},
		"before all":               {at("9:1-10"), 4, "", &PlanError{Want: 4, Next: 10}},
		"behind all":               {archive, 50, "", &PlanError{Want: 50, Reached: 42, Behind: true}},
		"nothing":                  {nil, 5, "", &PlanError{}},
		"no base":                  {at("1:5-6", "1:7-8"), 8, "", &PlanError{Want: 8}},
		"gap":                      {at("9:1-4", "1:5-6", "1:8-9", "9:1-12"), 9, "", &PlanError{Want: 9, Reached: 6, Next: 12}},
		"gap behind a snapshot":    {at("9:1-4", "1:5-6", "9:1-8", "1:9-9"), 9, "9:1-8 1:9-9", nil},
		"overlapping":              {at("9:1-25", "3:11-40", "3:41-60"), 60, "9:1-25 3:11-40 3:41-60", nil},
		"one that ends too late":   {at("9:1-10", "3:11-40", "1:11-20", "1:21-30"), 30, "9:1-10 1:11-20 1:21-30", nil},
	} {
		got, err := Plan(c.files, c.to)
		if text(got) != c.want {
			t.Errorf("%s: %q, want %q", name, text(got), c.want)
		}
		var fault *PlanError
		errors.As(err, &fault)
		if (fault == nil) != (c.fault == nil) || fault != nil && *fault != *c.fault {
			t.Errorf("%s: %+v, want %+v", name, fault, c.fault)
		}
	}
}

// TestPlanAgainstSearch compares with a search over all ways, by number of
// files.
func TestPlanAgainstSearch(t *testing.T) {
	t.Parallel()
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var files []File
		for range rng.IntN(14) + 1 {
			lo := ltx.TXID(rng.IntN(20) + 1)
			hi := lo + ltx.TXID(rng.IntN(8))
			level := levels.Level(rng.IntN(4))
			if rng.IntN(4) == 0 {
				lo, level = 1, levels.Snapshot
			}
			files = append(files, File{File: levels.File{Level: level, Min: lo, Max: hi}})
		}
		for to := ltx.TXID(1); to < 30; to++ {
			got, err := Plan(files, to)
			least := search(files, to)
			if (err == nil) != (least > 0) {
				t.Fatalf("seed %d, to %d: %v, the search finds %d files", seed, to, err, least)
			}
			if err != nil {
				continue
			}
			if got[0].Min != 1 || got[len(got)-1].Max != to {
				t.Fatalf("seed %d, to %d: %s", seed, to, text(got))
			}
			for i, f := range got[1:] {
				if f.Min > got[i].Max+1 || f.Max <= got[i].Max {
					t.Fatalf("seed %d, to %d: %s", seed, to, text(got))
				}
			}
		}
	}
}

// search returns the least number of files that lead to a TXID, 0: none do.
func search(files []File, to ltx.TXID) int {
	need := map[ltx.TXID]int{}
	for range len(files) + 1 {
		for _, f := range files {
			if f.Max > to {
				continue
			}
			best := 0
			if f.Min == 1 {
				best = 1
			}
			for end, n := range need {
				if f.Min <= end+1 && f.Max > end && (best == 0 || n+1 < best) {
					best = n + 1
				}
			}
			if best > 0 && (need[f.Max] == 0 || best < need[f.Max]) {
				need[f.Max] = best
			}
		}
	}
	return need[to]
}
