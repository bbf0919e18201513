// Package crc64iso owns the CRC-64 of LTX files and of database pages (polynomial
// ISO 3309, as crc64.ISO of the standard library), several times as fast where the
// processor multiplies without carries: every page that is captured, applied,
// merged or restored is hashed at least once.
//
// Invariant: Update(c, p) == crc64.Update(c, crc64.MakeTable(crc64.ISO), p) for all
// c and p.
package crc64iso
