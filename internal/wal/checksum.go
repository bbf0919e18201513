package wal

import "encoding/binary"

// Sum is the running checksum of a WAL: the cumulative checksum of the file
// header and all frames up to some frame. The two words are s0 and s1 of
// fileformat2.html section 4.2.
type Sum [2]uint32

// Extend returns the checksum of b appended to what s covers. The length of b
// must be a multiple of 8. bigEndian selects the byte order in which b is read
// as 32-bit words: the lowest bit of the WAL's magic number says which.
func (s Sum) Extend(b []byte, bigEndian bool) Sum {
	if bigEndian {
		return s.extendBig(b)
	}
	s0, s1 := s[0], s[1]
	for len(b) >= 32 {
		w0 := binary.LittleEndian.Uint64(b)
		w1 := binary.LittleEndian.Uint64(b[8:])
		w2 := binary.LittleEndian.Uint64(b[16:])
		w3 := binary.LittleEndian.Uint64(b[24:])
		s0 += uint32(w0) + s1
		s1 += uint32(w0>>32) + s0
		s0 += uint32(w1) + s1
		s1 += uint32(w1>>32) + s0
		s0 += uint32(w2) + s1
		s1 += uint32(w2>>32) + s0
		s0 += uint32(w3) + s1
		s1 += uint32(w3>>32) + s0
		b = b[32:]
	}
	for len(b) >= 8 {
		s0 += binary.LittleEndian.Uint32(b) + s1
		s1 += binary.LittleEndian.Uint32(b[4:]) + s0
		b = b[8:]
	}
	return Sum{s0, s1}
}

func (s Sum) extendBig(b []byte) Sum {
	s0, s1 := s[0], s[1]
	for len(b) >= 8 {
		s0 += binary.BigEndian.Uint32(b) + s1
		s1 += binary.BigEndian.Uint32(b[4:]) + s0
		b = b[8:]
	}
	return Sum{s0, s1}
}

// nativeBigEndian reports the byte order of this machine, which is the byte
// order of the wal-index.
var nativeBigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1
