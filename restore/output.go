package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/ltxstream/ltxstream/internal/atomicfile"
)

// Output is a database in the making: a file beside its final place, under a
// hidden name, which one restore at a time has. One of Finish and Discard, and
// then Close, end it; after Close alone the file stays as it is.
type Output struct {
	File *os.File

	path string // final
	part string // while it is made
	log  string // of the segments in it; see resumable

	force bool // replace what is there
	named bool // it has its final name
}

// ErrBusy says that another restore writes the same output.
var ErrBusy = errors.New("another restore writes it")

// NewOutput begins a database that will be at path, see [CheckOutput], with an
// empty file. What an earlier restore left unfinished there goes.
func NewOutput(path string, force bool) (*Output, error) {
	o, err := openOutput(path, force)
	if err != nil {
		return nil, err
	}
	if err = remove(o.log); err == nil { // first: it describes the file
		err = o.File.Truncate(0)
	}
	if err != nil {
		return nil, errors.Join(err, o.Close())
	}
	return o, nil
}

// openOutput opens the unfinished file, whatever is in it.
func openOutput(path string, force bool) (*Output, error) {
	dir, name := filepath.Split(path)
	o := &Output{path: path, force: force, part: filepath.Join(dir, "."+name+".restore"), log: filepath.Join(dir, "."+name+".restore-log")}
	f, err := os.OpenFile(o.part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	o.File = f
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", o.part, ErrBusy), f.Close())
	}
	return o, nil
}

// WriteAt writes a part of the database, and begins to write large ones to disk.
func (o *Output) WriteAt(b []byte, offset int64) (int, error) {
	n, err := o.File.WriteAt(b, offset)
	if err != nil {
		return n, fmt.Errorf("write %s: %w", o.part, err)
	}
	if len(b) >= writebackFrom {
		startWriteback(o.File, offset, int64(len(b)))
	}
	return n, nil
}

// writebackFrom is how many bytes are worth a call of their own.
const writebackFrom = 1 << 20

// Finish syncs the file, shows it to check (nil: nobody) under its hidden name,
// and gives it the final one, durably. A file that does not pass is removed,
// unless ctx has ended.
func (o *Output) Finish(ctx context.Context, check func(ctx context.Context, path string) error) error {
	if err := o.File.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", o.part, err)
	}
	if check != nil {
		if err := check(ctx, o.part); err != nil {
			if ctx.Err() != nil {
				return err
			}
			return errors.Join(fmt.Errorf("check the restored database: %w", err), o.Discard())
		}
	}
	if err := o.publish(ctx); err != nil {
		return fmt.Errorf("restore to %s: %w", o.path, err)
	}
	return nil
}

// publish gives the file its name. What SQLite kept beside an older database of
// that name goes first: it would be applied to the new one.
func (o *Output) publish(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err := CheckOutput(o.path, o.force); err != nil { // a restore takes its time: somebody may have begun to use the name
		return err
	}
	for _, suffix := range sideFiles {
		if err := remove(o.path + suffix); err != nil {
			return err
		}
	}
	if err := os.Rename(o.part, o.path); err != nil {
		return err
	}
	o.named = true
	return errors.Join(remove(o.log), atomicfile.SyncDir(filepath.Dir(o.path)))
}

var sideFiles = []string{"-wal", "-shm", "-journal"}

// Discard removes what was made, unless it has its final name: what has the hidden
// one is another restore's then.
func (o *Output) Discard() error {
	if o.named {
		return nil
	}
	return errors.Join(remove(o.part), remove(o.log))
}

// remove makes sure that there is no such file.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Close lets go of the file.
func (o *Output) Close() error { return o.File.Close() }
