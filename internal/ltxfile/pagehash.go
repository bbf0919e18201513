package ltxfile

import (
	"encoding/binary"
	"math/bits"
)

// Primes of xxHash-32.
const (
	prime1 uint32 = 0x9E3779B1
	prime2 uint32 = 0x85EBCA77
	prime3 uint32 = 0xC2B2AE3D
)

// pageHash is the xxHash-32, with seed 0, of a page. The length of a page is a
// multiple of 16 bytes: the steps for a remainder are not here.
// (github.com/Cyan4973/xxHash, doc/xxhash_spec.md)
func pageHash(page []byte) uint32 {
	n, p := uint32(len(page)), prime1 // not constants: sums that wrap
	a, b, c, d := p+prime2, prime2, uint32(0), -p
	for ; len(page) >= 16; page = page[16:] {
		a = mix(a, page)
		b = mix(b, page[4:])
		c = mix(c, page[8:])
		d = mix(d, page[12:])
	}
	h := bits.RotateLeft32(a, 1) + bits.RotateLeft32(b, 7) + bits.RotateLeft32(c, 12) + bits.RotateLeft32(d, 18) + n
	h ^= h >> 15
	h *= prime2
	h ^= h >> 13
	h *= prime3
	return h ^ h>>16
}

func mix(lane uint32, b []byte) uint32 {
	return bits.RotateLeft32(lane+binary.LittleEndian.Uint32(b)*prime2, 13) * prime1
}
