package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// FileID identifies a file beyond its name.
type FileID struct{ Dev, Inode uint64 }

// Identify returns the identity of the file at path. It is asked for hundreds of
// times a second for each database that is written to, so it allocates little.
func Identify(path string) (FileID, error) {
	for {
		var st unix.Stat_t
		err := unix.Stat(path, &st)
		if err == nil {
			return FileID{Dev: uint64(st.Dev), Inode: st.Ino}, nil
		}
		if !errors.Is(err, unix.EINTR) {
			return FileID{}, &fs.PathError{Op: "stat", Path: path, Err: err}
		}
	}
}

func identityOf(fi fs.FileInfo) FileID {
	st := fi.Sys().(*syscall.Stat_t)
	return FileID{Dev: uint64(st.Dev), Inode: st.Ino}
}

// registry keeps the descriptors of database and -shm files: those that no DB
// uses at the moment, and those in use, so that a DB which is dropped without
// Close is not the end of its descriptors (the garbage collector closes files).
// It is the one mutable global of this module: POSIX drops every lock that a
// process holds on a file when the process closes any descriptor of it, so
// whether a descriptor may be closed is a fact about the process, not about one
// DB.
var registry = struct {
	sync.Mutex
	idle map[FileID][]*os.File
	used map[*os.File]struct{}
}{idle: map[FileID][]*os.File{}, used: map[*os.File]struct{}{}}

// acquire returns a descriptor of the file at path that nobody else uses: an
// idle one, else a new one. Hand it back with release; never close it.
func acquire(path string) (*os.File, FileID, error) {
	id, err := Identify(path)
	if err != nil {
		return nil, FileID{}, err
	}
	if f := takeIdle(id); f != nil {
		return f, id, nil
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, FileID{}, err
	}
	use(f)
	fi, err := f.Stat()
	if err != nil {
		release(f, id) // unknown which file it is: keep it
		return nil, FileID{}, fmt.Errorf("stat %s: %w", path, err)
	}
	return f, identityOf(fi), nil
}

func takeIdle(id FileID) *os.File {
	registry.Lock()
	defer registry.Unlock()
	files := registry.idle[id]
	if len(files) == 0 {
		return nil
	}
	f := files[len(files)-1]
	registry.idle[id] = files[:len(files)-1]
	registry.used[f] = struct{}{}
	return f
}

func use(f *os.File) {
	registry.Lock()
	defer registry.Unlock()
	registry.used[f] = struct{}{}
}

// release hands a descriptor back. Its locks must have been dropped.
func release(f *os.File, id FileID) {
	registry.Lock()
	defer registry.Unlock()
	delete(registry.used, f)
	registry.idle[id] = append(registry.idle[id], f)
}

// CloseIdle closes the idle descriptors of one file. Call it only where no
// SQLite connection of this process can be open on that file: never inside an
// application that has connections of its own.
func CloseIdle(id FileID) error {
	registry.Lock()
	files := registry.idle[id]
	delete(registry.idle, id)
	registry.Unlock()
	var errs []error
	for _, f := range files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
