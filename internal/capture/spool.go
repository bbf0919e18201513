package capture

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/atomicfile"
)

// spool keeps LTX files in a directory, small ones in segments: those that await acknowledgement, and a
// tail of those that have it, from which a stream that lost its newest messages
// is repaired. Files are not synced: after a power loss the database itself,
// compared with the head of the stream, is the source.
type spool struct {
	dir string
	seg *segment // being written to, by the capturing goroutine; nil: none
	mu  struct {
		sync.Mutex
		files   []File // contiguous, ascending
		acked   ltx.TXID
		pending int64 // bytes of the files beyond acked
		tail    int64 // bytes of the others
	}
}

const (
	fileSuffix = ".ltx"
	fullSuffix = ".full.ltx"
	tempSuffix = atomicfile.Suffix
)

// openSpool reads what an earlier run left. Each file is verified whole: a kill
// leaves at most the last one half written, a power loss any. What is damaged is
// dropped, and so is all that came before a gap in the chain.
func openSpool(dir string) (*spool, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	s := &spool{dir: dir}
	for _, e := range slices.Backward(names) {
		if err := s.load(filepath.Join(dir, e.Name())); err != nil {
			return nil, fmt.Errorf("open spool: %w", err)
		}
	}
	return s, nil
}

// load takes up what the file at path holds, newest first, as far as it
// precedes what was loaded before; a file of which nothing is left is removed.
func (s *spool) load(path string) error {
	read := readSingle
	switch {
	case strings.HasSuffix(path, tempSuffix):
		return os.Remove(path)
	case strings.HasSuffix(path, segmentSuffix):
		read = readSegment
	case !strings.HasSuffix(path, fileSuffix):
		return nil
	}
	files, err := read(path)
	if err != nil {
		return err
	}
	kept := 0
	for _, f := range slices.Backward(files) {
		if len(s.mu.files) > 0 && f.Pos() != s.mu.files[0].PrePos() {
			break
		}
		s.mu.files = slices.Insert(s.mu.files, 0, f)
		s.mu.pending += f.Size
		kept++
	}
	if kept == 0 {
		return os.Remove(path)
	}
	return nil
}

// readSingle reads a file that is one LTX file; nothing, where it is damaged.
func readSingle(path string) ([]File, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	fi, err := r.Stat()
	if err != nil {
		return nil, err
	}
	f, err := readFile(r, path, 0, fi.Size(), strings.HasSuffix(path, fullSuffix))
	if err != nil {
		return nil, nil
	}
	return []File{f}, nil
}

func (s *spool) path(txid ltx.TXID, full bool) string {
	if full {
		return filepath.Join(s.dir, txid.String()+fullSuffix)
	}
	return filepath.Join(s.dir, txid.String()+fileSuffix)
}

// add enters a file whose content is complete on disk.
func (s *spool) add(f File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.mu.files); n > 0 {
		s.mu.files[n-1].data = nil // only the newest is kept in memory
	}
	s.mu.files = append(s.mu.files, f)
	s.mu.pending += f.Size
}

// search returns the index of the first file beyond txid.
func (s *spool) search(txid ltx.TXID) int {
	return sort.Search(len(s.mu.files), func(i int) bool { return s.mu.files[i].TXID() > txid })
}

// after returns the first file beyond txid.
func (s *spool) after(txid ltx.TXID) (File, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.search(txid)
	if i == len(s.mu.files) {
		return File{}, false
	}
	return s.mu.files[i], true
}

// find returns the file of txid.
func (s *spool) find(txid ltx.TXID) (File, bool) {
	f, ok := s.after(txid - 1)
	return f, ok && f.TXID() == txid
}

// last returns the newest file.
func (s *spool) last() (File, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.mu.files) == 0 {
		return File{}, false
	}
	return s.mu.files[len(s.mu.files)-1], true
}

// usage returns how many files and bytes await acknowledgement.
func (s *spool) usage() (files int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.files) - s.search(s.mu.acked), s.mu.pending
}

// ack marks all up to txid as acknowledged and removes the oldest of them
// beyond tail bytes. The newest file always stays: it tells where to go on.
func (s *spool) ack(txid ltx.TXID, tail int64) error {
	var errs []error
	for _, path := range s.trim(txid, tail) {
		errs = append(errs, os.Remove(path))
	}
	return errors.Join(errs...)
}

func (s *spool) trim(txid ltx.TXID, tail int64) (paths []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := s.search(s.mu.acked); i < len(s.mu.files) && s.mu.files[i].TXID() <= txid; i++ {
		s.mu.pending -= s.mu.files[i].Size
		s.mu.acked = s.mu.files[i].TXID()
		s.mu.tail += s.mu.files[i].Size
	}
	cut := 0
	rest := s.mu.tail
	for i := 0; rest > tail && i < s.search(s.mu.acked)-1; i++ {
		rest -= s.mu.files[i].Size
		if s.mu.files[i+1].path != s.mu.files[i].path { // a segment goes as a whole
			cut, s.mu.tail = i+1, rest
		}
	}
	paths = pathsOf(s.mu.files[:cut])
	s.mu.files = slices.Delete(s.mu.files, 0, cut)
	return paths
}

// pathsOf returns the paths of files, each once.
func pathsOf(files []File) (paths []string) {
	for _, f := range files {
		if n := len(paths); n == 0 || paths[n-1] != f.path {
			paths = append(paths, f.path)
		}
	}
	return paths
}

// release lets go of memory and descriptors: an idle database keeps none.
func (s *spool) release() error {
	err := s.endSegment()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.mu.files {
		s.mu.files[i].data = nil
	}
	return err
}

// clear removes every file: the chain begins anew with a full file.
func (s *spool) clear() error {
	err := s.endSegment()
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := []error{err}
	for _, path := range pathsOf(s.mu.files) {
		errs = append(errs, os.Remove(path))
	}
	s.mu.files, s.mu.acked, s.mu.pending, s.mu.tail = nil, 0, 0, 0
	return errors.Join(errs...)
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// oldest returns the first file that awaits acknowledgement.
func (s *spool) oldest() (File, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.search(s.mu.acked)
	if i == len(s.mu.files) {
		return File{}, false
	}
	return s.mu.files[i], true
}
