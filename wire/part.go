package wire

import (
	"fmt"
	"math"
	"strings"
)

// PartCount returns how many messages a file of size bytes needs when one
// holds partSize of them: at least 1. Every part but the last is exactly
// partSize long. It panics unless partSize > 0.
func PartCount(size int64, partSize int) int {
	if partSize <= 0 {
		panic(fmt.Sprintf("wire: part size %d", partSize))
	}
	if size <= 0 {
		return 1
	}
	return int((size-1)/int64(partSize)) + 1
}

// PartRange returns offset and length of the 1-based part of a file of size
// bytes; the length is 0 for a part that the file does not have.
func PartRange(size int64, partSize, part int) (off, n int64) {
	if part < 1 || part > PartCount(size, partSize) {
		return 0, 0
	}
	off = int64(part-1) * int64(partSize)
	return off, max(0, min(int64(partSize), size-off))
}

func formatPart(part, parts int) string { return fmt.Sprintf("%d/%d", part, parts) }

// part reads "i/n" with 1 ≤ i ≤ n and n ≥ 2.
func (f *fields) part() (part, parts int) {
	s := f.one(HeaderPart)
	i, n, _ := strings.Cut(s, "/")
	p, ok1 := parseDecimal(i)
	ps, ok2 := parseDecimal(n)
	if !ok1 || !ok2 || ps < 2 || ps > math.MaxInt32 || p < 1 || p > ps {
		f.fail(HeaderPart, s, "want i/n with 1 ≤ i ≤ n and n ≥ 2")
		return 1, 1
	}
	return int(p), int(ps)
}
