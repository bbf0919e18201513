package restore

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// output is a database in the making: a file beside its final place, and a log
// of the segments that are in it.
type output struct {
	path string // final
	part string // while it is made
	log  string
	f    *os.File

	mu struct {
		sync.Mutex
		log *os.File
	}
	done map[int]bool // segments that an earlier run had written
}

// ErrBusy says that another restore writes the same output.
var ErrBusy = errors.New("another restore writes it")

// openOutput opens the unfinished file, and learns from its log what an earlier
// run of the same job had done.
func openOutput(path string, job *Job) (*output, error) {
	dir, name := filepath.Split(path)
	o := &output{
		path: path,
		part: filepath.Join(dir, "."+name+".restore"),
		log:  filepath.Join(dir, "."+name+".restore-log"),
		done: map[int]bool{},
	}
	f, err := os.OpenFile(o.part, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	o.f = f
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", o.part, ErrBusy)
	}
	if err := o.resume(job); err != nil {
		return nil, errors.Join(err, o.close())
	}
	return o, nil
}

// digest tells jobs apart: only what the same plan wrote is worth keeping.
func (j *Job) digest() string {
	h := crc32.NewIEEE()
	enc := json.NewEncoder(h)
	for _, p := range j.files {
		_ = enc.Encode([]any{p.key(), p.Size, p.header, p.post}) // a hash never fails
	}
	for _, s := range j.segments {
		_ = enc.Encode([]int64{int64(s.file), s.offset, s.size})
	}
	return fmt.Sprintf("%s %s %08x", j.Header.MaxTXID, j.Post, h.Sum32())
}

// resume reads the log, or begins a new one.
func (o *output) resume(job *Job) error {
	size := int64(job.Header.Commit) * int64(job.Header.PageSize)
	log, err := os.OpenFile(o.log, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	o.mu.log = log
	lines := bufio.NewScanner(log)
	if lines.Scan() && lines.Text() == job.digest() {
		for lines.Scan() {
			var n int
			if _, err := fmt.Sscanf(lines.Text(), "%d.", &n); err == nil && strings.HasSuffix(lines.Text(), ".") && n >= 0 && n < len(job.segments) {
				o.done[n] = true
			}
		}
		if st, err := o.f.Stat(); err == nil && st.Size() == size && len(o.done) > 0 {
			return nil
		}
	}
	clear(o.done)
	if err := errors.Join(log.Truncate(0), o.f.Truncate(0), o.f.Truncate(size)); err != nil {
		return err
	}
	_, err = log.WriteAt([]byte(job.digest()+"\n"), 0)
	if err == nil {
		_, err = log.Seek(0, 2)
	}
	return err
}

// writePages writes pages that follow one another.
func (o *output) writePages(first uint32, pages []byte, size int) error {
	offset := int64(first-1) * int64(size)
	if _, err := o.f.WriteAt(pages, offset); err != nil {
		return fmt.Errorf("write %s: %w", o.part, err)
	}
	if len(pages) >= writebackFrom {
		startWriteback(o.f, offset, int64(len(pages)))
	}
	return nil
}

// writebackFrom is how many bytes are worth a call of their own.
const writebackFrom = 1 << 20

// wrote notes that a segment is in the file. The end of a line is its dot: one
// that was cut short is not taken for another number.
func (o *output) wrote(n int) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, err := fmt.Fprintf(o.mu.log, "%d.\n", n)
	return err
}

// publish gives the file its name. What SQLite kept beside an older database of
// that name goes first: it would be applied to the new one.
func (o *output) publish(ctx context.Context) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for _, suffix := range sideFiles {
		if err := os.Remove(o.path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(o.part, o.path); err != nil {
		return err
	}
	return errors.Join(os.Remove(o.log), syncDir(filepath.Dir(o.path)))
}

var sideFiles = []string{"-wal", "-shm", "-journal"}

// discard removes what was made.
func (o *output) discard() error { return errors.Join(os.Remove(o.part), os.Remove(o.log)) }

func (o *output) close() error {
	err := o.f.Close()
	if o.mu.log != nil {
		err = errors.Join(err, o.mu.log.Close())
	}
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
