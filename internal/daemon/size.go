package daemon

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes in a flag: "64MB", "1.5GiB", "4096". MB is 2^20, as
// is MiB; the zero value means the default of whatever it bounds.
type Size int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Size) UnmarshalText(text []byte) error {
	number, unit := splitSize(string(text))
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n < 0 || math.IsInf(n, 0) || math.IsNaN(n) || strings.ContainsAny(number, "xXpP_eE") {
		return fmt.Errorf("parse size %q: want a number and a unit like 64MB", text)
	}
	shift, ok := map[string]int{"": 0, "B": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]
	if !ok {
		return fmt.Errorf("parse size %q: unknown unit; use KB, MB, GB or TB", text)
	}
	bytes := math.Ldexp(n, shift)
	if bytes >= math.MaxInt64 {
		return fmt.Errorf("parse size %q: too large", text)
	}
	*s = Size(bytes)
	return nil
}

// splitSize returns the number and the unit's letter.
func splitSize(text string) (number, unit string) {
	text = strings.ToUpper(strings.TrimSpace(text))
	i := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })
	if i < 0 {
		return text, ""
	}
	unit = strings.TrimSpace(text[i:])
	if len(unit) > 1 {
		unit = strings.TrimSuffix(strings.TrimSuffix(unit, "B"), "I")
	}
	return strings.TrimSpace(text[:i]), unit
}

func (s Size) String() string {
	n := float64(s)
	for _, u := range []string{"B", "KB", "MB", "GB"} {
		if n < 1024 {
			return strconv.FormatFloat(n, 'f', -1, 64) + u
		}
		n /= 1024
	}
	return strconv.FormatFloat(n, 'f', -1, 64) + "TB"
}
