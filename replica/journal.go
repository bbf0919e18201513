package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/ltxstream/ltxstream/internal/atomicfile"
	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/superfly/ltx"
)

// journal is the position journal: a file of entries, the newest last. Records
// stand alone, so a torn tail or a damaged record costs that record only. One
// goroutine appends; sync may be called from another.
type journal struct {
	path string
	buf  [recordSize]byte
	size int64

	mu struct {
		sync.Mutex // guards the descriptor against its replacement
		f          *os.File
	}
}

const (
	journalRewrite = 1 << 20      // rewritten at a WAL restart beyond this
	journalLimit   = 16 << 20     // and beyond this at once
	journalKeep    = 8192         // entries that a rewrite keeps
	positionsName  = "positions"  // in the state directory
	sumsName       = "checksums"  // likewise
	newSuffix      = ".rewriting" // of a rewrite in progress
)

// openJournal opens the journal at path or makes an empty one. The next record
// takes the place of a torn one at its end.
func openJournal(path string) (*journal, error) {
	if err := os.Remove(path + newSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open position journal: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open position journal: %w", err)
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open position journal: %w", err), f.Close())
	}
	j := &journal{path: path, size: fi.Size() / recordSize * recordSize}
	j.mu.f = f
	return j, nil
}

// load returns what the journal holds, the oldest first.
func (j *journal) load() ([]entry, error) {
	b := make([]byte, j.size)
	if _, err := j.mu.f.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read position journal: %w", err)
	}
	return parseJournal(b), nil
}

// parseJournal returns the whole and undamaged entries of a journal.
func parseJournal(b []byte) []entry {
	es := make([]entry, 0, len(b)/recordSize)
	for rec := range slices.Chunk(b, recordSize) {
		if e, ok := parseEntry(rec); ok {
			es = append(es, e)
		}
	}
	return es
}

// append adds e. It outlives a crash of this process, not a power loss.
func (j *journal) append(e entry) error {
	e.encode(&j.buf)
	if _, err := j.mu.f.WriteAt(j.buf[:], j.size); err != nil { // only this goroutine replaces f
		return fmt.Errorf("append position: %w", err)
	}
	j.size += recordSize
	return nil
}

// sync makes what was appended durable.
func (j *journal) sync() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.mu.f.Sync(); err != nil {
		return fmt.Errorf("sync position journal: %w", err)
	}
	return nil
}

// compact rewrites a journal of more than limit bytes, keeping the newest
// entries: more than the WAL can fall back to after any crash.
func (j *journal) compact(limit int64) error {
	if j.size <= limit {
		return nil
	}
	if err := j.rewrite(); err != nil {
		return fmt.Errorf("rewrite position journal: %w", err)
	}
	return nil
}

func (j *journal) rewrite() error {
	keep := make([]byte, min(j.size, journalKeep*recordSize))
	if _, err := j.mu.f.ReadAt(keep, j.size-int64(len(keep))); err != nil {
		return err
	}
	f, err := os.OpenFile(j.path+newSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if err := j.install(f, keep); err != nil {
		return errors.Join(err, f.Close(), os.Remove(j.path+newSuffix))
	}
	return nil
}

// install makes f, with the content keep, the journal: write, fsync, rename,
// fsync dir.
func (j *journal) install(f *os.File, keep []byte) error {
	if _, err := f.Write(keep); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), j.path); err != nil {
		return err
	}
	j.mu.Lock()
	old := j.mu.f
	j.mu.f, j.size = f, int64(len(keep))
	j.mu.Unlock()
	return errors.Join(old.Close(), atomicfile.SyncDir(filepath.Dir(j.path)))
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.mu.f.Close()
}

// lastOf returns the newest entry that fits; false: none does.
func lastOf(es []entry, fits func(*entry) bool) (entry, bool) {
	for i := len(es) - 1; i >= 0; i-- {
		if fits(&es[i]) {
			return es[i], true
		}
	}
	return entry{}, false
}

// entryOf returns the entry of the commit that h describes.
func entryOf(es []entry, h wal.Header) (entry, bool) {
	return lastOf(es, func(e *entry) bool { return e.commits(h) })
}

// entryWith returns the newest entry of a database with this content.
func entryWith(es []entry, sum ltx.Checksum, pageSize, pages uint32) (entry, bool) {
	return lastOf(es, func(e *entry) bool {
		return e.Pos.PostApplyChecksum == sum && e.PageSize == pageSize && e.PageCount == pages
	})
}
