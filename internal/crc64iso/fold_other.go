//go:build !amd64

package crc64iso

const canFold = false

func fold(uint64, []byte) [16]byte { panic("no instruction for it") }
