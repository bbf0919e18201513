package capture

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/superfly/ltx"
)

// File is one LTX file in the spool.
type File struct {
	Header  ltx.Header
	Trailer ltx.Trailer
	Size    int64
	Full    bool // holds every page of the database

	path string
	data []byte // the content, while it is small and new
}

// TXID returns the file's transaction.
func (f File) TXID() ltx.TXID { return f.Header.MaxTXID }

// Pos returns the position after the file.
func (f File) Pos() ltx.Pos {
	return ltx.Pos{TXID: f.Header.MaxTXID, PostApplyChecksum: f.Trailer.PostApplyChecksum}
}

// PrePos returns the position before the file.
func (f File) PrePos() ltx.Pos { return f.Header.PreApplyPos() }

// Content is an opened File.
type Content interface {
	io.ReaderAt
	io.Closer
}

type memory struct{ *bytes.Reader }

func (memory) Close() error { return nil }

// Open opens the content. The file may leave the spool meanwhile; what is open
// stays readable.
func (f File) Open() (Content, error) {
	if f.data != nil {
		return memory{bytes.NewReader(f.data)}, nil
	}
	r, err := os.Open(f.path)
	if err != nil {
		return nil, fmt.Errorf("open spooled ltx file: %w", err)
	}
	return r, nil
}

// Bytes returns the whole content where it is at hand in memory; else nil. The
// caller must not change it.
func (f File) Bytes() []byte { return f.data }

// spool keeps LTX files in a directory: those that await acknowledgement, and a
// tail of those that have it, from which a stream that lost its newest messages
// is repaired. Files are not synced: after a power loss the database itself,
// compared with the head of the stream, is the source.
type spool struct {
	dir string
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
	tempSuffix = ".tmp"
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
		if err := s.load(e); err != nil {
			return nil, fmt.Errorf("open spool: %w", err)
		}
	}
	return s, nil
}

// load takes up one file, in descending order, or removes it.
func (s *spool) load(e fs.DirEntry) error {
	path := filepath.Join(s.dir, e.Name())
	if !strings.HasSuffix(e.Name(), fileSuffix) {
		if strings.HasSuffix(e.Name(), tempSuffix) {
			return os.Remove(path)
		}
		return nil
	}
	f, err := readSpooled(path)
	if err != nil || len(s.mu.files) > 0 && f.Pos() != s.mu.files[0].PrePos() {
		return os.Remove(path)
	}
	s.mu.files = slices.Insert(s.mu.files, 0, f)
	s.mu.pending += f.Size
	return nil
}

func readSpooled(path string) (File, error) {
	r, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer r.Close()
	fi, err := r.Stat()
	if err != nil {
		return File{}, err
	}
	f := File{path: path, Size: fi.Size(), Full: strings.HasSuffix(path, fullSuffix)}
	if err := f.readEnds(r); err != nil {
		return File{}, fmt.Errorf("read %s: %w", path, err)
	}
	if err := ltx.NewDecoder(r).Verify(); err != nil {
		return File{}, fmt.Errorf("verify %s: %w", path, err)
	}
	return f, nil
}

func (f *File) readEnds(r io.ReaderAt) error {
	if f.Size < ltx.HeaderSize+ltx.TrailerSize {
		return io.ErrUnexpectedEOF
	}
	head := make([]byte, ltx.HeaderSize)
	tail := make([]byte, ltx.TrailerSize)
	if _, err := r.ReadAt(head, 0); err != nil {
		return err
	}
	if _, err := r.ReadAt(tail, f.Size-ltx.TrailerSize); err != nil {
		return err
	}
	return errors.Join(f.Header.UnmarshalBinary(head), f.Trailer.UnmarshalBinary(tail))
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
	for ; s.mu.tail > tail && cut < s.search(s.mu.acked)-1; cut++ {
		s.mu.tail -= s.mu.files[cut].Size
	}
	for _, f := range s.mu.files[:cut] {
		paths = append(paths, f.path)
	}
	s.mu.files = slices.Delete(s.mu.files, 0, cut)
	return paths
}

// release lets go of memory: an idle database keeps none.
func (s *spool) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.mu.files {
		s.mu.files[i].data = nil
	}
}

// clear removes every file: the chain begins anew with a full file.
func (s *spool) clear() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, f := range s.mu.files {
		errs = append(errs, os.Remove(f.path))
	}
	s.mu.files, s.mu.acked, s.mu.pending, s.mu.tail = nil, 0, 0, 0
	return errors.Join(errs...)
}

func newSection(r io.ReaderAt, size int64) *io.SectionReader { return io.NewSectionReader(r, 0, size) }

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
