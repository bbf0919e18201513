package crc64iso

import "hash/crc64"

var table = crc64.MakeTable(crc64.ISO)

// foldFrom is from how many bytes on folding pays.
const foldFrom = 128

// Update adds p to a CRC; the CRC of nothing is 0.
func Update(crc uint64, p []byte) uint64 {
	if !canFold || len(p) < foldFrom {
		return crc64.Update(crc, table, p)
	}
	// What is left of the folded part are 16 bytes with its CRC from a state of zero.
	n := len(p) &^ 63
	rest := fold(^crc, p[:n])
	return crc64.Update(crc64.Update(^uint64(0), table, rest[:]), table, p[n:])
}
