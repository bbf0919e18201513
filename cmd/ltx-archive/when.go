package main

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"time"
)

var ago = regexp.MustCompile(`^(\d+)\s*([a-z]+) ago$`)

var units = map[string]time.Duration{
	"s": time.Second, "sec": time.Second, "second": time.Second, "seconds": time.Second,
	"m": time.Minute, "min": time.Minute, "minute": time.Minute, "minutes": time.Minute,
	"h": time.Hour, "hour": time.Hour, "hours": time.Hour,
	"d": 24 * time.Hour, "day": 24 * time.Hour, "days": 24 * time.Hour,
	"w": 7 * 24 * time.Hour, "week": 7 * 24 * time.Hour, "weeks": 7 * 24 * time.Hour,
}

// parseTime reads a point in time: RFC 3339, the same without a zone (then it is
// local), a date, or a distance such as "10 minutes ago" or "1h30m ago". It
// guesses nothing: what it does not know is an error.
func parseTime(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, text, now.Location()); err == nil {
			return t, nil
		}
	}
	if m := ago.FindStringSubmatch(text); m != nil {
		n, err := strconv.ParseInt(m[1], 10, 32)
		if unit, ok := units[m[2]]; ok && err == nil && n <= int64(math.MaxInt64/unit) {
			return now.Add(-time.Duration(n) * unit), nil
		}
	}
	if n := len(text) - len(" ago"); n > 0 && text[n:] == " ago" {
		if d, err := time.ParseDuration(text[:n]); err == nil && d >= 0 {
			return now.Add(-d), nil
		}
	}
	return time.Time{}, fmt.Errorf("time %q: want 2026-01-31T13:00:00Z, \"2026-01-31 13:00:00\" (local) or \"10 minutes ago\"", text)
}
