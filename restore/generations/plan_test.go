package generations

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// parse reads generations as a person writes them down: of each a name, then
// snapshots s<index>@<time> and segments <index>.<offset>@<time>; times in seconds.
func parse(t testing.TB, lines ...string) (all []Generation) {
	t.Helper()
	for _, line := range lines {
		words := strings.Fields(line)
		g := Generation{Name: words[0]}
		for _, w := range words[1:] {
			var index, offset, at int
			if _, err := fmt.Sscanf(w, "s%x@%d", &index, &at); err == nil {
				g.Snapshots = append(g.Snapshots, Snapshot{Index: Index(index), Object: Object{Key: w, Size: 1, Time: second(at)}})
			} else if _, err := fmt.Sscanf(w, "%x.%d@%d", &index, &offset, &at); err == nil {
				g.Segments = append(g.Segments, Segment{Index: Index(index), Offset: int64(offset), Object: Object{Key: w, Size: 1, Time: second(at)}})
			} else {
				t.Fatalf("word %q", w)
			}
		}
		all = append(all, g)
	}
	return all
}

// second is a time; 0 is none.
func second(n int) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return started.Add(time.Duration(n) * time.Second)
}

func TestFind(t *testing.T) {
	t.Parallel()
	index := func(i Index) *Index { return &i }
	two := []string{
		"a s0@10 0.0@11 0.5@12 1.0@13 s1@14 1.5@15 2.0@16",
		"b s0@20 0.0@21 1.0@22 s2@23 2.0@24 2.9@25",
	}
	for name, c := range map[string]struct {
		archive []string
		target  Target
		want    string // generation, snapshot and segments; else what the error says
		gap     bool
	}{
		"newest":                          {two, Target{}, "b s2@23 2.0@24 2.9@25", false},
		"newest of one":                   {two[:1], Target{}, "a s1@14 1.0@13 1.5@15 2.0@16", false},
		"order of names":                  {[]string{two[1], two[0]}, Target{}, "b s2@23 2.0@24 2.9@25", false},
		"written last, begun first":       {[]string{"a s0@10 0.0@11 0.9@40", "b s0@20 0.0@30"}, Target{}, "a s0@10 0.0@11 0.9@40", false},
		"named":                           {two, Target{Generation: "a"}, "a s1@14 1.0@13 1.5@15 2.0@16", false},
		"named, none such":                {two, Target{Generation: "c"}, "no generation c, but a, b", false},
		"index":                           {two, Target{Index: index(1)}, "b s0@20 0.0@21 1.0@22", false},
		"index with a snapshot":           {two, Target{Index: index(2)}, "b s2@23 2.0@24 2.9@25", false},
		"index of a generation":           {two, Target{Generation: "a", Index: index(0)}, "a s0@10 0.0@11 0.5@12", false},
		"index behind the end":            {two, Target{Index: index(3)}, "no WAL index 00000003, the last one is 00000002", false},
		"index before the first snapshot": {[]string{"a s4@10 4.0@11"}, Target{Index: index(3)}, "first one is at 00000004", false},
		"index of a snapshot alone":       {[]string{"a s4@10"}, Target{Index: index(4)}, "a s4@10", false},
		"time in the first":               {two, Target{Time: second(12)}, "a s0@10 0.0@11 0.5@12", false},
		"time between two objects":        {two, Target{Time: second(12).Add(1)}, "a s0@10 0.0@11 0.5@12", false},
		"time of a snapshot":              {two, Target{Time: second(14)}, "a s1@14 1.0@13", false},
		"time between generations":        {two, Target{Time: second(18)}, "a s1@14 1.0@13 1.5@15 2.0@16", false},
		"time of the second's snapshot":   {two, Target{Time: second(20)}, "b s0@20", false},
		"time in a generation":            {two, Target{Generation: "a", Time: second(24)}, "a s1@14 1.0@13 1.5@15 2.0@16", false},
		"time behind all":                 {two, Target{Time: second(99)}, "b s2@23 2.0@24 2.9@25", false},
		"time before all":                 {two, Target{Time: second(9)}, "first one is of 2023-05-06T07:08:19.000Z", false},
		"time before a generation":        {two, Target{Generation: "b", Time: second(15)}, "generation b: there is no snapshot from before", false},
		"newer snapshot wins":             {[]string{"a s0@10 0.0@11 0.9@40", "b s0@20 0.0@30"}, Target{Time: second(35)}, "b s0@20 0.0@30", false},
		"last written in one second":      {[]string{"a s0@10 0.0@11 s1@20 1.0@20", "b s0@20 0.0@20"}, Target{}, "b s0@20 0.0@20", false},
		"the same, other names":           {[]string{"a s0@20 0.0@20", "b s0@10 0.0@11 s1@20 1.0@20"}, Target{}, "a s0@20 0.0@20", false},
		"snapshots of one second":         {[]string{"a s0@20 0.0@20", "b s0@10 0.0@11 s1@20 1.0@20"}, Target{Time: second(20)}, "a s0@20 0.0@20", false},
		"time and index":                  {two, Target{Time: second(12), Index: index(1)}, "not both", false},
		"later times before":              {[]string{"a s0@10 0.0@11 1.0@19 2.0@13"}, Target{Time: second(15)}, "a s0@10 0.0@11", false},
		"no times":                        {[]string{"a s0@0 0.0@0"}, Target{Time: second(15)}, "tells the time of none", false},
		"no times, newest":                {[]string{"a s0@0 0.0@0"}, Target{}, "a s0@0 0.0@0", false},
		"nothing":                         {nil, Target{}, "no generations", false},
		"no snapshot":                     {[]string{"a s0@10", "b 0.0@20"}, Target{}, "generation b: it has no snapshot", false},
		"no snapshot, named":              {[]string{"a s0@10", "b 0.0@20"}, Target{Generation: "b", Index: index(0)}, "generation b: it has no snapshot", false},
		"no snapshot, by time":            {[]string{"a s0@10", "b 0.0@20"}, Target{Time: second(30)}, "a s0@10", false},
		"snapshot alone":                  {[]string{"a s7@10"}, Target{}, "a s7@10", false},
		"left over before the snapshot":   {[]string{"a 0.0@1 1.7@2 s2@3 2.0@4"}, Target{}, "a s2@3 2.0@4", false},

		"first index missing":   {[]string{"a s0@10 1.0@11"}, Target{}, "WAL index 00000000 is missing: what comes next is 1.0@11", true},
		"index missing":         {[]string{"a s0@10 0.0@11 1.0@11 3.0@12"}, Target{}, "WAL index 00000002 is missing: what comes next is 3.0@12", true},
		"two missing":           {[]string{"a s0@10 0.0@11 3.0@12 6.0@13"}, Target{}, "WAL index 00000001 is missing", true},
		"first segment missing": {[]string{"a s0@10 0.0@11 1.5@12 1.9@13"}, Target{}, "the segment at offset 00000000 of WAL index 00000001 is missing: what comes next is 1.5@12", true},
		"missing before target": {[]string{"a s0@10 1.0@11 2.0@12"}, Target{Index: index(1)}, "WAL index 00000000 is missing", true},
		"missing behind target": {[]string{"a s0@10 0.0@11 2.0@12"}, Target{Index: index(0)}, "a s0@10 0.0@11", false},
		"missing before a snapshot, behind which all is": {[]string{"a s0@10 0.0@11 s2@12 2.0@13"}, Target{}, "a s2@12 2.0@13", false},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Find(parse(t, c.archive...), c.target)
			if err != nil {
				_, isGap := errors.AsType[*GapError](err)
				_, isTarget := errors.AsType[*TargetError](err)
				if isGap != c.gap || isTarget == c.gap || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("%v (gap: %t), want %q", err, isGap, c.want)
				}
				return
			}
			got := p.Generation
			for _, o := range p.Objects() {
				got += " " + o.Key
			}
			if got != c.want {
				t.Fatalf("%s, want %s", got, c.want)
			}
			if n := int64(len(p.Objects())); p.Bytes() != n {
				t.Errorf("%d bytes, want %d", p.Bytes(), n)
			}
		})
	}
}

func TestStretches(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"a":                               "[]",
		"a 0.0@1":                         "[]",
		"a s0@1":                          "[{00000000 00000000}]",
		"a s0@1 0.0@2 0.5@2 1.0@3":        "[{00000000 00000001}]",
		"a s3@1 3.0@2 4.0@3":              "[{00000003 00000004}]",
		"a s0@1 0.0@2 s1@3 1.0@4":         "[{00000000 00000001}]",
		"a s0@1 0.0@2 s1@3":               "[{00000000 00000001}]",
		"a s0@1 0.0@2 2.0@3 s3@4 3.0@5":   "[{00000000 00000000} {00000003 00000003}]",
		"a s0@1 0.0@2 1.5@3 s2@4 2.0@5":   "[{00000000 00000000} {00000002 00000002}]",
		"a s0@1 s2@4":                     "[{00000000 00000000} {00000002 00000002}]",
		"a s7ffffffe@1 7ffffffe.0@2":      "[{7ffffffe 7ffffffe}]",
		"a 0.0@1 1.0@2 s2@2 2.0@3 3.0@9 ": "[{00000002 00000003}]",
	} {
		g := parse(t, line)[0]
		if got := fmt.Sprint(g.Stretches()); got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	t.Parallel()
	const g = "0123456789abcdef"
	for rest, want := range map[string]string{
		g + "/snapshots/00000000.snapshot.lz4":              "snapshot 00000000",
		g + "/snapshots/7fffffff.snapshot.lz4":              "snapshot 7fffffff",
		g + "/wal/0000000a_00001020.wal.lz4":                "segment 0000000a 4128",
		g + "/wal/00000000_00000000.wal.lz4":                "segment 00000000 0",
		g + "/wal/00000000_100000000.wal.lz4":               "segment 00000000 4294967296",
		g + "/wal/00000000_0000000000000000.wal.lz4":        "",
		g + "/wal/00000000_8000000000000000.wal.lz4":        "",
		g + "/wal/00000000_00000000.wal.lz4.tmp":            "",
		g + "/wal/00000000.wal.lz4":                         "",
		g + "/wal/80000000_00000000.wal.lz4":                "",
		g + "/wal/0000000A_00001020.wal.lz4":                "",
		g + "/snapshots/00000000_00000000.wal.lz4":          "",
		g + "/snapshots/0000000.snapshot.lz4":               "",
		g + "/snapshots/00000000.snapshot":                  "",
		g[1:] + "/snapshots/00000000.snapshot.lz4":          "",
		g + "0/snapshots/00000000.snapshot.lz4":             "",
		"x" + g[1:] + "/wal/00000000_00000000.wal.lz4":      "",
		g + "/wal/x/00000000_00000000.wal.lz4":              "",
		"x/" + g + "/wal/00000000_00000000.wal.lz4":         "",
		g + "/wal/00000000_00000000_00000000.wal.lz4":       "",
		strings.ToUpper(g) + "/snapshots/00000000.snapshot": "",
	} {
		got := ""
		if name, index, ok := parseSnapshot(rest); ok && name == g {
			got = "snapshot " + index.String()
		}
		if name, index, offset, ok := parseSegment(rest); ok && name == g {
			got = fmt.Sprintf("segment %s %d", index, offset)
		}
		if got != want {
			t.Errorf("%s: %q, want %q", rest, got, want)
		}
		if !IsKey("generations/"+rest) && want != "" || IsKey(rest) || IsKey("x/generations/"+rest) {
			t.Errorf("%s: IsKey is wrong", rest)
		}
	}
	for text, want := range map[string]string{"0": "00000000", "1f": "0000001f", "0000001f": "0000001f", "7fffffff": "7fffffff"} {
		if i, err := ParseIndex(text); err != nil || i.String() != want {
			t.Errorf("%s: %s, %v", text, i, err)
		}
	}
	for _, text := range []string{"", "g", "-1", "+1", "80000000", "000000001", "0x1", "1_0"} {
		if i, err := ParseIndex(text); err == nil {
			t.Errorf("%q: %s", text, i)
		}
	}
}
