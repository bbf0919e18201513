package app

import (
	"math/bits"
	"time"
)

const (
	subBits = 6 // 64 buckets per power of two: at most 1.6 % off
	buckets = (64 - subBits) << subBits
)

// Histogram counts durations in bounded memory, each to within 1.6 %. The zero value is empty. Not safe for concurrent use.
type Histogram struct {
	counts [buckets]int64
	n      int64
	max    time.Duration
}

// Add counts d; a negative one counts as zero.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(uint64(d))]++
	h.n++
	h.max = max(h.max, d)
}

// Count is how many durations were added.
func (h *Histogram) Count() int64 { return h.n }

// Max is the longest one, exactly.
func (h *Histogram) Max() time.Duration { return h.max }

// Quantile returns the duration that a share q (0 to 1) of all did not exceed; 0 when empty.
func (h *Histogram) Quantile(q float64) time.Duration {
	want, seen := int64(q*float64(h.n)), int64(0)
	for i, c := range h.counts {
		if seen += c; c > 0 && seen > want {
			return min(lowest(i+1), h.max)
		}
	}
	return h.max
}

func bucket(v uint64) int {
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return (shift+1)<<subBits + int(v>>shift) - 1<<subBits
}

// lowest is the smallest duration of bucket i.
func lowest(i int) time.Duration {
	shift := i>>subBits - 1
	if shift < 0 {
		return time.Duration(i)
	}
	return time.Duration((i&(1<<subBits-1) | 1<<subBits) << shift)
}
