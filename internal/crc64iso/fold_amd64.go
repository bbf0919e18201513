package crc64iso

import (
	"encoding/binary"

	"golang.org/x/sys/cpu"
)

var canFold = cpu.X86.HasPCLMULQDQ

// fold returns 16 bytes whose CRC, from the state zero on, is that of p from the
// given state on. len(p) is a multiple of 64, not 0.
//
// Bytes further on in p are added after those before them were moved there: a
// multiplication by a power of x modulo the polynomial, 128 bits at a time in four
// lanes (Gopal et al., Fast CRC Computation for Generic Polynomials Using PCLMULQDQ,
// Intel 2009; bits are reflected here).
func fold(state uint64, p []byte) (rest [16]byte) {
	lo, hi := foldBlocks(state, &p[0], len(p)/64)
	binary.LittleEndian.PutUint64(rest[:], lo)
	binary.LittleEndian.PutUint64(rest[8:], hi)
	return rest
}

//go:noescape
func foldBlocks(state uint64, p *byte, blocks int) (lo, hi uint64)
