package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	fileMagic = "SQLite format 3\x00"
	fileHead  = 100 // bytes of the header of a database file (fileformat2.html section 1.3)
)

// Whole reports whether the file at path is as long as its header says: one that is
// being created or copied may not be, and neither may one whose last pages are in a
// WAL. A file that is no database is whole: SQLite will say what it is.
func Whole(path string) (bool, error) {
	f, id, err := acquire(path)
	if err != nil {
		return false, fmt.Errorf("look at database: %w", err)
	}
	defer release(f, id)
	var head [fileHead]byte
	n, err := f.ReadAt(head[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, fmt.Errorf("look at database: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("look at database: %w", err)
	}
	if !bytes.HasPrefix(head[:n], []byte(fileMagic)[:min(n, len(fileMagic))]) {
		return true, nil
	}
	return n == fileHead && fi.Size() >= sizeIn(head), nil
}

// sizeIn returns the size in bytes that the header of a database file tells; one
// page at least. It tells none where whoever wrote it last did not know the field
// (section 1.3.8).
func sizeIn(head [fileHead]byte) int64 {
	be := binary.BigEndian
	pageSize, pages := int64(be.Uint16(head[16:])), int64(be.Uint32(head[28:]))
	if pageSize == 1 {
		pageSize = 65536
	}
	if be.Uint32(head[24:]) != be.Uint32(head[92:]) {
		pages = 0
	}
	return pageSize * max(pages, 1)
}
