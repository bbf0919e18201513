package restore

import (
	"context"
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
	// maxSegment bounds what is in memory for each request, bytes.
	maxSegment = 2 << 20
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
	raw   []byte // of the segment
	run   []byte // decoded pages that follow one another
	first uint32 // number of the first of them
	spare []byte // room for a page that is not in the database
	sum   ltx.Checksum
}

// fetch reads a segment, decodes its pages into the output, and adds their
// checksums to the worker's.
func (w *worker) fetch(ctx context.Context, s segment, fetched *counter) error {
	p := w.job.files[s.file]
	w.raw = slices.Grow(w.raw[:0], int(s.size))[:s.size]
	if err := p.read(ctx, s.offset, w.raw); err != nil {
		return err
	}
	fetched.add(s.size)
	w.run = w.run[:0]
	for i, e := range s.pages {
		at := e.Offset - s.offset
		frame, err := ltxfile.ParseFrame(w.raw[at:at+e.Size], e.Pgno)
		if err != nil {
			return p.fault(err)
		}
		page, err := w.room(e.Pgno, s.file)
		if err != nil {
			return err
		}
		if err := frame.Decode(page); err != nil {
			return p.fault(err)
		}
		w.add(p, s.first+i, frame, page)
	}
	return w.flush()
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
	if pgno != w.first+uint32(len(w.run)/size) || len(w.run) >= maxSegment {
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
