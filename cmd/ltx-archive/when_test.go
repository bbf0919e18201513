package main

import (
	"fmt"
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("", 2*60*60)
	now := time.Date(2026, 5, 6, 7, 8, 9, 123_000_000, zone)
	at := func(h, m, s int) time.Time { return time.Date(2026, 5, 6, h, m, s, 0, zone) }
	for text, want := range map[string]time.Time{
		"2026-05-06T05:00:00Z":          at(7, 0, 0),
		"2026-05-06T05:00:00.250Z":      at(7, 0, 0).Add(250 * time.Millisecond),
		"2026-05-06T05:00:00+01:00":     at(6, 0, 0),
		"2026-05-06T05:00:00":           at(5, 0, 0),
		"2026-05-06T05:00:00.5":         at(5, 0, 0).Add(500 * time.Millisecond),
		"2026-05-06 05:00:00":           at(5, 0, 0),
		"2026-05-06 05:00":              at(5, 0, 0),
		"2026-05-06":                    at(0, 0, 0),
		"10 minutes ago":                now.Add(-10 * time.Minute),
		"1 minute ago":                  now.Add(-time.Minute),
		"10min ago":                     now.Add(-10 * time.Minute),
		"90s ago":                       now.Add(-90 * time.Second),
		"2 hours ago":                   now.Add(-2 * time.Hour),
		"3 days ago":                    now.Add(-72 * time.Hour),
		"2w ago":                        now.Add(-14 * 24 * time.Hour),
		"1h30m ago":                     now.Add(-90 * time.Minute),
		"1.5h ago":                      now.Add(-90 * time.Minute),
		"":                              {},
		"now":                           {},
		"yesterday":                     {},
		"10 minutes":                    {},
		"10 fortnights ago":             {},
		"-10 minutes ago":               {},
		"-1h30m ago":                    {},
		" ago":                          {},
		"ago":                           {},
		"10":                            {},
		"1767225600":                    {},
		"2026-13-01":                    {},
		"2026-02-30":                    {},
		"2026-05-06T25:00:00Z":          {},
		"06.05.2026":                    {},
		"05/06/2026":                    {},
		"2026-05-06 05:00:00 CEST":      {},
		"99999999999999999999 days ago": {},
		"200000 weeks ago":              {}, // more than a time.Duration holds
	} {
		got, err := parseTime(text, now)
		if (err == nil) == want.IsZero() || !got.Equal(want) {
			t.Errorf("%q: %s, %v; want %s", text, got, err, want)
		}
	}
}

func TestParseShare(t *testing.T) {
	t.Parallel()
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("app/ltx/1/%016x-%016x.ltx", i, i)
	}
	count := func(s share) (n int) {
		for _, key := range keys {
			if s(key) {
				n++
			}
		}
		return n
	}
	for text, want := range map[string][2]int{
		"": {0, 0}, "none": {0, 0}, "0%": {0, 0}, "0.5%": {0, 40}, "10%": {40, 200}, "100%": {1000, 1000}, "full": {1000, 1000}, "1/1": {1000, 1000}, "2/7": {90, 200},
	} {
		s, err := parseShare(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if n := count(s); n < want[0] || n > want[1] {
			t.Errorf("%q takes %d of %d, want %v", text, n, len(keys), want)
		}
	}
	for _, text := range []string{"all", "0/7", "8/7", "1/0", "/7", "1/", "1/7/2", "-1/7", "101%", "-1%", "%", "NaN%", "ten%", "10", "Inf%"} {
		if _, err := parseShare(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
	// The parts of a whole are all of it, and each file is in one.
	for _, key := range keys {
		n := 0
		for part := 1; part <= 7; part++ {
			s, err := parseShare(fmt.Sprintf("%d/7", part))
			if err != nil {
				t.Fatal(err)
			}
			if s(key) {
				n++
			}
		}
		if n != 1 {
			t.Fatalf("%s is in %d of 7 parts", key, n)
		}
	}
}
