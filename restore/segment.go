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
	pages        []ltxfile.Entry // that count, in order; between them lie some that do not
}

const (
	// maxSegment bounds what is in memory for each request, bytes.
	maxSegment = 2 << 20
	// wasteShare is what may be fetched beside the winning pages, to save
	// requests: one part in wasteShare.
	wasteShare = 100
)

// cut makes segments of the winning pages of n files: neighbours in a file are
// fetched together, and across small gaps as long as all gaps together stay
// within a hundredth of what is needed.
func cut(pages []location, n int) (segments []segment) {
	perFile := make([][]ltxfile.Entry, n)
	for i, l := range pages {
		if l.file > 0 {
			perFile[l.file-1] = append(perFile[l.file-1], ltxfile.Entry{Pgno: uint32(i + 1), Offset: l.offset, Size: int64(l.size)})
		}
	}
	for file, entries := range perFile { // in page order, and so by offset
		widest := bridged(entries)
		for begin := 0; begin < len(entries); {
			s := segment{file: file, offset: entries[begin].Offset}
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
	job *Job
	out *resumable
	raw []byte // of the segment
	run []byte // decoded pages that follow one another
	sum ltx.Checksum
}

// fetch reads a segment, decodes its pages into the output, and returns the XOR
// of their checksums.
func (w *worker) fetch(ctx context.Context, s segment, fetched *counter) error {
	p := w.job.files[s.file]
	w.raw = slices.Grow(w.raw[:0], int(s.size))[:s.size]
	if err := p.read(ctx, s.offset, w.raw); err != nil {
		return err
	}
	fetched.add(s.size)
	size := int(w.job.Header.PageSize)
	shift := ltxfile.ShiftOf(w.job.Header.PageSize)
	first := s.pages[0].Pgno
	w.run = w.run[:0]
	for _, e := range s.pages {
		if e.Pgno != first+uint32(len(w.run)/size) || len(w.run) >= maxSegment {
			if err := w.out.writePages(first, w.run, size); err != nil {
				return err
			}
			first, w.run = e.Pgno, w.run[:0]
		}
		at := e.Offset - s.offset
		frame, err := ltxfile.ParseFrame(w.raw[at:at+e.Size], e.Pgno)
		if err != nil {
			return p.fault(err)
		}
		n := len(w.run)
		w.run = slices.Grow(w.run, size)[:n+size]
		if err := frame.Decode(w.run[n:]); err != nil {
			return p.fault(err)
		}
		w.sum ^= ltxfile.PageSum(shift, e.Pgno, ltxfile.DataCRC(w.run[n:]))
	}
	return w.out.writePages(first, w.run, size)
}
