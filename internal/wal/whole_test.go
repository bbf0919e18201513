package wal

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"
)

func TestWhole(t *testing.T) {
	db := func(pageSize uint16, pages, change, validFor uint32, size int) []byte {
		b := make([]byte, max(size, fileHead))
		copy(b, fileMagic)
		be := binary.BigEndian
		be.PutUint16(b[16:], pageSize)
		be.PutUint32(b[28:], pages)
		be.PutUint32(b[24:], change)
		be.PutUint32(b[92:], validFor)
		return b[:size]
	}
	for name, c := range map[string]struct {
		file []byte
		want bool
	}{
		"empty":                  {nil, false},
		"part of the magic":      {db(4096, 3, 7, 7, 5), false},
		"part of the header":     {db(4096, 3, 7, 7, 99), false},
		"header":                 {db(4096, 3, 7, 7, 100), false},
		"a byte is missing":      {db(4096, 3, 7, 7, 3*4096-1), false},
		"as long as it says":     {db(4096, 3, 7, 7, 3*4096), true},
		"longer":                 {db(4096, 3, 7, 7, 4*4096), true},
		"pages of 64 KiB, short": {db(1, 2, 7, 7, 65536), false},
		"pages of 64 KiB":        {db(1, 2, 7, 7, 2*65536), true},
		"size not valid":         {db(4096, 3, 8, 7, 4096), true},
		"size not valid, short":  {db(4096, 3, 8, 7, 4095), false},
		"no database":            {bytes.Repeat([]byte("text "), 3), true},
	} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, c.file, 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := Whole(path); got != c.want || err != nil {
			t.Errorf("%s: %t, %v, want %t", name, got, err, c.want)
		}
	}
}
