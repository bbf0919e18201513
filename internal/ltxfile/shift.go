package ltxfile

import (
	"github.com/ltxstream/ltxstream/internal/crc64iso"
	"sync"
)

// Shift is what appending n bytes does to the difference of two CRC-64s,
// whatever the bytes are: a CRC is linear, so
//
//	Update(a, b) ^ Update(c, b) == shift(a ^ c)
//
// With it the checksum of a page and that of the file up to the same page cost
// one pass over the page instead of two.
type Shift [8][256]uint64

// Apply returns the shift of x.
func (s *Shift) Apply(x uint64) uint64 {
	return s[0][x&0xff] ^ s[1][x>>8&0xff] ^ s[2][x>>16&0xff] ^ s[3][x>>24&0xff] ^
		s[4][x>>32&0xff] ^ s[5][x>>40&0xff] ^ s[6][x>>48&0xff] ^ s[7][x>>56]
}

// shifts holds the shift of each page size, 512 << i, made when first used.
// They are constants that take a moment to compute.
var shifts = func() (f [8]func() *Shift) {
	for i := range f {
		f[i] = sync.OnceValue(func() *Shift { return newShift(512 << i) })
	}
	return f
}()

// ShiftOf returns the shift of a page.
func ShiftOf(pageSize uint32) *Shift {
	i := 0
	for pageSize > 512 {
		pageSize >>= 1
		i++
	}
	return shifts[i]()
}

func newShift(n int) *Shift {
	zeros, s := make([]byte, n), new(Shift)
	none := crc64iso.Update(0, zeros)
	for i := range s {
		for bit := range 8 {
			s[i][1<<bit] = crc64iso.Update(1<<(8*i+bit), zeros) ^ none
		}
		for x := range s[i] {
			low := x & -x
			s[i][x] = s[i][low] ^ s[i][x^low]
		}
	}
	return s
}
