package compactor

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
)

var noon = time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC)

// made reads "9:1-40@-3h" as a file whose timestamp is three hours before noon.
func made(specs ...string) *Inventory {
	inv := &Inventory{}
	for _, spec := range specs {
		head, ago, _ := strings.Cut(spec, "@")
		var f levels.File
		if _, err := fmt.Sscanf(head, "%d:%d-%d", &f.Level, &f.Min, &f.Max); err != nil {
			panic(spec)
		}
		d, err := time.ParseDuration(ago)
		if err != nil {
			panic(spec)
		}
		f.Timestamp = noon.Add(d)
		inv.Add(f)
	}
	return inv
}

func text(files []levels.File) string {
	var all []string
	for _, f := range files {
		all = append(all, fmt.Sprintf("%d:%d-%d", f.Level, f.Min, f.Max))
	}
	return strings.Join(all, " ")
}

func TestPick(t *testing.T) {
	t.Parallel()
	s := Schedule{Windows: []time.Duration{5 * time.Minute, time.Hour}, Snapshot: 24 * time.Hour}
	for name, c := range map[string]struct {
		inv   *Inventory
		level levels.Level
		want  string
	}{
		"nothing":              {made(), 2, ""},
		"window not over":      {made("1:1-5@0s"), 2, ""},
		"window over by clock": {made("1:1-5@-10m", "1:6-7@-9m"), 2, "1:1-5 1:6-7"},
		"window over by file":  {made("1:1-5@-10m", "1:6-7@-6m", "1:8-9@-1s"), 2, "1:1-5 1:6-7"},
		"up to a gap":          {made("1:1-5@-10m", "1:7-8@-9m"), 2, "1:1-5"},
		"behind the gap":       {made("1:1-5@-10m", "1:7-8@-9m", "2:1-5@-10m"), 2, "1:7-8"},
		"goes on":              {made("2:1-5@-10m", "1:1-3@-11m", "1:4-5@-10m", "1:6-9@-7m", "1:10-11@-6m"), 2, "1:6-9 1:10-11"},
		"overlapping":          {made("2:1-12@-10m", "1:10-12@-11m", "1:10-14@-10m", "1:13-15@-9m", "1:15-18@-9m", "1:16-17@-8m", "1:19-22@-7m"), 2, "1:13-15 1:15-18 1:19-22"},
		"third level":          {made("2:1-5@-90m", "2:6-9@-62m", "2:10-12@-30m"), 3, "2:1-5 2:6-9"},
	} {
		if got := text(Pick(c.inv, c.level, s, noon)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestPickSnapshot(t *testing.T) {
	t.Parallel()
	s := DefaultSchedule
	for name, c := range map[string]struct {
		inv  *Inventory
		want string
	}{
		"nothing":             {made(), ""},
		"no base":             {made("1:5-6@-1h"), ""},
		"first file is one":   {made("1:1-6@-1h", "1:7-8@-1h"), "1:1-6 1:7-8"},
		"not yet":             {made("9:1-6@-23h", "1:7-8@-1h"), ""},
		"due":                 {made("9:1-6@-25h", "1:7-8@-1h", "1:9-9@-1m"), "9:1-6 1:7-8 1:9-9"},
		"due, nothing new":    {made("9:1-6@-25h", "1:1-6@-25h"), ""},
		"the fewest":          {made("9:1-6@-25h", "1:7-8@-1h", "1:9-9@-1m", "3:5-9@-1m"), "9:1-6 3:5-9"},
		"clock went back":     {made("9:1-6@9h", "1:7-7@-25h", "1:8-8@-24h"), "9:1-6 1:7-7 1:8-8"},
		"… a moment ago":      {made("9:1-6@9h", "1:7-7@-1h"), ""},
		"up to a gap":         {made("9:1-6@-25h", "1:7-8@-1h", "1:10-11@-1m"), "9:1-6 1:7-8"},
		"gap behind snapshot": {made("9:1-6@-25h", "1:8-9@-1h"), ""},
	} {
		if got := text(PickSnapshot(c.inv, s, noon)); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}

func TestKeep(t *testing.T) {
	t.Parallel()
	daily := Policy{Window: 24 * time.Hour, Daily: 3}
	for name, c := range map[string]struct {
		inv    *Inventory
		p      Policy
		want   string // deleted
		anchor ltx.TXID
	}{
		"no policy":     {made("9:1-5@-100h", "9:1-9@-90h", "1:1-5@-100h"), Policy{}, "", 0},
		"no snapshot":   {made("1:1-5@-100h"), daily, "", 0},
		"all in window": {made("9:1-5@-23h", "1:1-5@-23h", "1:6-7@-1h"), daily, "", 0},
		"one before":    {made("9:1-5@-30h", "1:1-5@-30h", "1:6-7@-25h", "9:1-9@-2h", "1:8-9@-2h"), daily, "1:1-5", 5},
		"exactly at":    {made("9:1-5@-30h", "9:1-7@-24h", "1:6-7@-24h"), Policy{Window: 24 * time.Hour}, "9:1-5 1:6-7", 7},
		"across":        {made("9:1-5@-30h", "1:4-7@-25h", "2:1-7@-25h"), daily, "", 5},
		"daily":         {made("9:1-1@-100h", "9:1-2@-76h", "9:1-3@-52h", "9:1-4@-28h", "9:1-5@-4h"), daily, "9:1-1 9:1-2", 4},
		"last":          {made("9:1-1@-100h", "9:1-2@-99h", "9:1-3@-98h", "9:1-4@-97h"), Policy{Window: time.Hour, Last: 2}, "9:1-1 9:1-2", 4},
		"monthly, yearly": {made("9:1-1@-20000h", "9:1-2@-9000h", "9:1-3@-2300h", "9:1-4@-1000h", "9:1-5@-300h"),
			Policy{Window: time.Hour, Monthly: 2, Yearly: 2}, "9:1-1 9:1-3", 5},
		"hourly, weekly": {made("9:1-1@-400h", "9:1-2@-399h", "9:1-3@-200h", "9:1-4@-3h", "9:1-5@-90m", "9:1-6@-80m"),
			Policy{Window: time.Minute, Hourly: 2, Weekly: 2}, "9:1-1 9:1-2 9:1-5", 6},
		"grace": {made("9:1-5@-30h", "9:1-7@-25h", "1:6-7@-25h"), Policy{Window: 24 * time.Hour, Grace: 2 * time.Hour}, "", 5},
	} {
		if c.want != "" || c.anchor != 0 {
			c.inv.Add(levels.File{Level: levels.First, Min: 1000, Max: 1000, Timestamp: noon})
		}
		v := Keep(c.inv, c.p, noon)
		if got := text(v.Delete); got != c.want || v.Anchor.Max != c.anchor {
			t.Errorf("%s: deletes %q on %s, want %q on %s", name, got, v.Anchor.Max, c.want, c.anchor)
		}
	}
	idle := made("9:1-5@-100h", "9:1-9@-90h", "1:1-5@-100h", "1:10-11@-89h")
	for _, now := range []time.Time{noon, noon.Add(20 * 365 * 24 * time.Hour)} {
		if v := Keep(idle, daily, now); len(v.Delete) > 0 {
			t.Errorf("the clock says %s: deletes %s, out of the last window in which anything happened", now, text(v.Delete))
		}
	}
	unknown := made("9:1-5@-100h", "9:1-9@-90h", "1:1-5@-100h")
	unknown.files[levels.Snapshot][0].Timestamp = time.Time{}
	if v := Keep(unknown, daily, noon); len(v.Delete) > 0 {
		t.Errorf("deletes %s though a timestamp is not known", text(v.Delete))
	}
}

func TestInventory(t *testing.T) {
	t.Parallel()
	inv := made("1:6-7@0s", "1:1-5@0s", "9:1-9@0s", "9:1-5@0s")
	if got := text(inv.all()); got != "1:1-5 9:1-5 9:1-9 1:6-7" {
		t.Errorf("all: %s", got)
	}
	if end := inv.End(); end.Level != levels.Snapshot || end.Max != 9 {
		t.Errorf("end: %s", end)
	}
	inv.Remove([]levels.File{inv.Level(levels.Snapshot)[1], {Level: 3, Min: 5, Max: 6}})
	if end := inv.End(); end.Level != levels.First || end.Max != 7 || inv.Max(levels.Snapshot) != 5 {
		t.Errorf("end: %s", end)
	}
	if !slices.IsSortedFunc(inv.Level(1), levels.CompareRange) {
		t.Error("not in order")
	}
}
