package restore

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"sync"
)

// resumable is an output with a log of the segments that are in it, so that a
// restore that was cut short goes on.
type resumable struct {
	*Output

	mu struct {
		sync.Mutex
		log *os.File
	}
	done map[int]bool // segments that an earlier run had written
}

// resume opens the output of a job, and learns from its log what an earlier run
// of the same job had done.
func resume(path string, force bool, job *Job) (*resumable, error) {
	o, err := openOutput(path, force)
	if err != nil {
		return nil, err
	}
	r := &resumable{Output: o, done: map[int]bool{}}
	if err := r.readLog(job); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

// digest tells jobs apart: only what the same plan wrote is worth keeping.
func (j *Job) digest() string {
	h := crc32.NewIEEE()
	enc := json.NewEncoder(h)
	for _, p := range j.files {
		_ = enc.Encode([]any{p.key(), p.Size, p.header, p.trailer.PostApplyChecksum}) // a hash never fails
	}
	for _, s := range j.segments {
		_ = enc.Encode([]int64{int64(s.file), s.offset, s.size})
	}
	return fmt.Sprintf("%s %s %08x", j.Header.MaxTXID, j.Post, h.Sum32())
}

// readLog reads the log, or begins a new one.
func (r *resumable) readLog(job *Job) error {
	size := int64(job.Header.Commit) * int64(job.Header.PageSize)
	log, err := os.OpenFile(r.log, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	r.mu.log = log
	lines := bufio.NewScanner(log)
	// Without a checksum of the database nothing proves what is in the file already.
	if job.Post != 0 && lines.Scan() && lines.Text() == job.digest() {
		for lines.Scan() {
			var n int
			if _, err := fmt.Sscanf(lines.Text(), "%d.", &n); err == nil && strings.HasSuffix(lines.Text(), ".") && n >= 0 && n < len(job.segments) {
				r.done[n] = true
			}
		}
		if st, err := r.File.Stat(); err == nil && st.Size() == size && len(r.done) > 0 {
			return nil
		}
	}
	clear(r.done)
	if err := errors.Join(log.Truncate(0), r.File.Truncate(0), r.File.Truncate(size)); err != nil {
		return err
	}
	_, err = log.WriteAt([]byte(job.digest()+"\n"), 0)
	if err == nil {
		_, err = log.Seek(0, 2)
	}
	return err
}

// writePages writes pages that follow one another.
func (r *resumable) writePages(first uint32, pages []byte, size int) error {
	_, err := r.WriteAt(pages, int64(first-1)*int64(size))
	return err
}

// wrote notes that a segment is in the file. The end of a line is its dot: one
// that was cut short is not taken for another number.
func (r *resumable) wrote(n int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := fmt.Fprintf(r.mu.log, "%d.\n", n)
	return err
}

func (r *resumable) close() error {
	err := r.Close()
	if r.mu.log != nil {
		err = errors.Join(err, r.mu.log.Close())
	}
	return err
}
