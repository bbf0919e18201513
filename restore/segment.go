package restore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
)

// segment is one range of one file, fetched by one request.
type segment struct {
	file         int // index into Job.files
	offset, size int64
	pages        []ltxfile.Entry // that count, in order; between them may lie some that do not
	first        int             // of them, among all that count in the file
}

const (
	// maxSegment bounds what is fetched by one request, bytes.
	maxSegment = 2 << 20
	// maxRun bounds the decoded pages in memory of each worker, bytes.
	maxRun = 1 << 20
	// readAhead is how many bytes of a segment are in memory.
	readAhead = 128 << 10
	// wasteShare is what may be fetched beside the winning pages, to save
	// requests: one part in wasteShare.
	wasteShare = 100
)

// winners are, of each of n files, the pages that the database has from it.
func winners(pages []location, n int) [][]ltxfile.Entry {
	perFile := make([][]ltxfile.Entry, n)
	for i, l := range pages {
		if l.file > 0 {
			perFile[l.file-1] = append(perFile[l.file-1], ltxfile.Entry{Pgno: uint32(i + 1), Offset: l.offset, Size: int64(l.size)})
		}
	}
	return perFile
}

// cut makes segments of pages of each file, in page order, and so by offset:
// neighbours are fetched together, and with gaps also across small ones as long as
// all gaps together stay within a hundredth of what is needed.
func cut(perFile [][]ltxfile.Entry, gaps bool) (segments []segment) {
	for file, entries := range perFile {
		var widest int64
		if gaps {
			widest = bridged(entries)
		}
		for begin := 0; begin < len(entries); {
			s := segment{file: file, offset: entries[begin].Offset, first: begin}
			end := begin
			for ; end < len(entries); end++ {
				e := entries[end]
				if end > begin && (e.Offset-(s.offset+s.size) > widest || e.Offset+e.Size-s.offset > maxSegment) {
					break
				}
				s.size = e.Offset + e.Size - s.offset
			}
			s.pages = entries[begin:end]
			segments = append(segments, s)
			begin = end
		}
	}
	return segments
}

// bridged returns the widest gap that may be fetched along.
func bridged(entries []ltxfile.Entry) int64 {
	var need int64
	var gaps []int64
	for i, e := range entries {
		need += e.Size
		if i > 0 {
			if gap := e.Offset - (entries[i-1].Offset + entries[i-1].Size); gap > 0 {
				gaps = append(gaps, gap)
			}
		}
	}
	slices.Sort(gaps)
	var total, widest int64
	for i := 0; i < len(gaps); {
		same := i
		for same < len(gaps) && gaps[same] == gaps[i] {
			total += gaps[same]
			same++
		}
		if total > need/wasteShare {
			break
		}
		widest = gaps[i]
		i = same
	}
	return widest
}

// worker decodes segments; its buffers are reused.
type worker struct {
	job   *Job
	out   *resumable
	in    *bufio.Reader // of the segment
	raw   []byte        // of the frame
	run   []byte        // decoded pages that follow one another
	first uint32        // number of the first of them
	spare []byte        // room for a page that is not in the database
	sum   ltx.Checksum
}

func (j *Job) newWorker(out *resumable) *worker {
	return &worker{job: j, out: out, in: bufio.NewReaderSize(nil, readAhead)}
}

// fetch reads a segment, decodes its pages into the output, and adds their
// checksums to the worker's.
func (w *worker) fetch(ctx context.Context, s segment, fetched *counter) (err error) {
	p := w.job.files[s.file]
	r, err := p.source.Open(ctx, p.File.File, s.offset, s.size)
	if err != nil {
		return p.fault(err)
	}
	defer func() { err = errors.Join(err, p.fault(r.Close())) }()
	w.in.Reset(r)
	w.run = w.run[:0]
	at := s.offset
	for i, e := range s.pages {
		if err := w.next(p, e, at); err != nil {
			return err
		}
		at = e.Offset + e.Size
		if err := w.decode(p, s, i); err != nil {
			return err
		}
	}
	fetched.add(s.size)
	return w.flush()
}

// next reads the frame of an entry, from offset at on.
func (w *worker) next(p *planned, e ltxfile.Entry, at int64) error {
	w.raw = slices.Grow(w.raw[:0], int(e.Size))[:e.Size]
	_, err := w.in.Discard(int(e.Offset - at))
	if err == nil {
		_, err = io.ReadFull(w.in, w.raw)
	}
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = fmt.Errorf("%w: it ends before %d: %w", ltxfile.ErrDamaged, e.Offset+e.Size, io.ErrUnexpectedEOF)
	}
	return p.fault(err)
}

// decode decodes the i-th page of a segment, which was read.
func (w *worker) decode(p *planned, s segment, i int) error {
	pgno := s.pages[i].Pgno
	frame, err := ltxfile.ParseFrame(w.raw, pgno)
	if err != nil {
		return p.fault(err)
	}
	page, err := w.room(pgno, s.file)
	if err != nil {
		return err
	}
	if err := frame.Decode(page); err != nil {
		return p.fault(err)
	}
	w.add(p, s.first+i, frame, page)
	return nil
}

// room returns where a page is decoded: behind those that go to the output, or aside.
func (w *worker) room(pgno uint32, file int) ([]byte, error) {
	size := int(w.job.Header.PageSize)
	if !w.job.wins(pgno, file) {
		if w.spare == nil {
			w.spare = make([]byte, size)
		}
		return w.spare, nil
	}
	if pgno != w.first+uint32(len(w.run)/size) || len(w.run) >= maxRun {
		if err := w.flush(); err != nil {
			return nil, err
		}
	}
	if len(w.run) == 0 {
		w.first = pgno
	}
	n := len(w.run)
	w.run = slices.Grow(w.run, size)[:n+size]
	return w.run[n:], nil
}

// add takes in a page's checksum. It is that of the database only if the page is.
func (w *worker) add(p *planned, i int, f ltxfile.Frame, page []byte) {
	crc := ltxfile.DataCRC(page)
	if p.tally != nil {
		p.tally.Read(i, f, crc)
		return
	}
	w.sum ^= ltxfile.PageSum(ltxfile.ShiftOf(w.job.Header.PageSize), f.Pgno, crc)
}

// flush writes what is decoded.
func (w *worker) flush() error {
	if len(w.run) == 0 {
		return nil
	}
	err := w.out.writePages(w.first, w.run, int(w.job.Header.PageSize))
	w.run = w.run[:0]
	return err
}
