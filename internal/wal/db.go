package wal

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// DB is one database in WAL mode as this package sees it: its three files, the
// mapped wal-index and the lock bytes. Methods may be called from several
// goroutines; two goroutines exclude each other by the lock bytes as two
// connections would.
type DB struct {
	name  string // as the caller gave it
	path  string // where it leads: SQLite names its files after that
	db    *os.File
	dbID  FileID
	shm   *os.File
	shmID FileID
	wal   *os.File
	walID FileID
	index *index
	locks locks

	onSync func() // nil: nothing

	spare struct { // buffers of the last Appender; who holds WRITE owns them
		buf   []byte
		pgnos []uint32
	}
	pin struct {
		sync.Mutex
		slot int // READ slot held shared with an unused mark; 0: none
	}
}

// Open opens the files of the database at path. A SQLite connection must hold
// it open in WAL mode, must have read from it once, and must stay open until
// after Close.
func Open(path string) (*DB, error) {
	d := &DB{name: path, path: path}
	if err := d.open(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *DB) open() (err error) {
	if d.path, err = filepath.EvalSymlinks(d.name); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if d.db, d.dbID, err = acquire(d.path); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if d.shm, d.shmID, err = acquire(d.path + "-shm"); err != nil {
		return fmt.Errorf("open wal-index: %w", err)
	}
	d.locks.f = d.shm
	if d.wal, err = os.OpenFile(d.path+"-wal", os.O_RDWR|os.O_CREATE, 0o644); err != nil {
		return fmt.Errorf("open wal: %w", err)
	}
	fi, err := d.wal.Stat()
	if err != nil {
		return fmt.Errorf("open wal: %w", err)
	}
	d.walID = identityOf(fi)
	if d.index, err = openIndex(d.shm); err != nil {
		return err
	}
	return d.keepPending()
}

// Close drops the locks and unmaps the index. The descriptors of the database
// and the -shm file stay open in the process (see CloseIdle).
func (d *DB) Close() error {
	var errs []error
	if d.index != nil {
		errs = append(errs, d.index.close())
	}
	if d.wal != nil {
		errs = append(errs, d.wal.Close()) // SQLite takes no lock on this file
	}
	if d.shm != nil {
		errs = append(errs, d.locks.unlockAll())
		release(d.shm, d.shmID)
	}
	if d.db != nil {
		errs = append(errs, d.setPending(unix.F_UNLCK))
		release(d.db, d.dbID)
	}
	d.index, d.wal, d.shm, d.db = nil, nil, nil, nil
	return errors.Join(errs...)
}

// IDs returns the identities of the database and of the -shm file.
func (d *DB) IDs() (db, shm FileID) { return d.dbID, d.shmID }

// Moved reports whether the name of the database, its -shm or its -wal file
// now leads to another file, or to none.
func (d *DB) Moved() bool {
	return !leadsTo(d.name, d.dbID) || !leadsTo(d.path+"-shm", d.shmID) || !leadsTo(d.path+"-wal", d.walID)
}

func leadsTo(name string, want FileID) bool {
	id, err := Identify(name)
	return err == nil && id == want
}

// Header returns the current wal-index header. ErrTorn and ErrFormat mean that
// the index awaits recovery by a SQLite connection. With MaxFrame 0 the other
// fields are those of the generation before, or, after a recovery from an empty
// WAL, zero: the size of the database is then that of its file.
func (d *DB) Header() (Header, error) { return d.index.header() }

// Backfilled returns how many frames have been copied into the database file.
func (d *DB) Backfilled() uint32 { return d.index.load(offBackfill) }

// ReadMark returns the last frame that readers of slot i use, or MarkUnused.
func (d *DB) ReadMark(i int) uint32 { return d.index.load(offReadMarks + 4*i) }

func (d *DB) setReadMark(i int, v uint32) { d.index.store(offReadMarks+4*i, v) }

// ReadWAL reads into b from byte off of the -wal file. Like io.ReaderAt.
func (d *DB) ReadWAL(b []byte, off int64) (int, error) { return d.wal.ReadAt(b, off) }

// ReadFile reads into b from byte off of the database file. Like io.ReaderAt.
func (d *DB) ReadFile(b []byte, off int64) (int, error) { return d.db.ReadAt(b, off) }

// FileSize returns the size of the database file, in bytes.
func (d *DB) FileSize() (int64, error) {
	fi, err := d.db.Stat()
	if err != nil {
		return 0, fmt.Errorf("stat database: %w", err)
	}
	return fi.Size(), nil
}

// WALSize returns the size of the -wal file, in bytes.
func (d *DB) WALSize() (int64, error) {
	fi, err := d.wal.Stat()
	if err != nil {
		return 0, fmt.Errorf("stat wal: %w", err)
	}
	return fi.Size(), nil
}

// FileHeader reads the header of the -wal file. Errors that wrap ErrFormat mean
// that the file is empty or holds no generation.
func (d *DB) FileHeader() (FileHeader, Sum, error) {
	var b [FileHeaderSize]byte
	n, err := d.wal.ReadAt(b[:], 0)
	if n < len(b) && errors.Is(err, io.EOF) {
		return FileHeader{}, Sum{}, fmt.Errorf("wal of %d bytes: %w", n, ErrFormat)
	}
	if n < len(b) {
		return FileHeader{}, Sum{}, fmt.Errorf("read wal header: %w", err)
	}
	return ParseFileHeader(b[:])
}
