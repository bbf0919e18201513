package compactor

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
)

// Input is one LTX file to merge.
type Input struct {
	Name string // for errors
	// Open begins to read the whole file. It is called once, before the merge
	// reads anything; the merge closes what it returns.
	Open func(ctx context.Context) (io.ReadCloser, error)
}

// MergeOptions of a [Merge].
type MergeOptions struct {
	// Snapshot asks for a file of all pages that begins at TXID 1: the first
	// input must hold every page, whatever its range.
	Snapshot bool
	// NoChecksums leaves the database checksums out of the file
	// (ltx.HeaderFlagNoChecksum), for readers that refuse them.
	NoChecksums bool
	SpillDir    string // for a large page index, default os.TempDir

	begun func(ltx.Header) // told the header before anything is written
}

// Merged is what came out of a [Merge].
type Merged struct {
	Header  ltx.Header
	Trailer ltx.Trailer // with the checksum of the file
	// Pre and Post are the database's checksums before and after, even if the
	// file itself does not bear them; zero when the inputs did not.
	Pre, Post ltx.Checksum
	Pages     int64 // in the file
	Size      int64 // bytes
}

// Timestamp is the latest of the inputs: that of the last transaction, unless the
// clock went back.
func (m Merged) Timestamp() time.Time { return time.UnixMilli(m.Header.Timestamp).UTC() }

// InputError says which input of a merge was at fault. It wraps
// ltxfile.ErrDamaged where the content was, and [ErrChain] where inputs do not
// follow one another.
type InputError struct {
	Index int // into the inputs
	Name  string
	Err   error
}

func (e *InputError) Error() string { return e.Name + ": " + e.Err.Error() }

func (e *InputError) Unwrap() error { return e.Err }

// ErrChain says that files do not follow one another: a gap, or another
// history.
var ErrChain = errors.New("does not continue the file before it")

// Merge writes to w one LTX file that does what the inputs do one after the
// other: of each page the last version, up to the size of the database after
// the last input, the latest timestamp. Frames are copied as they are. Every
// input is read whole and verified: its own checksum and page index, and that
// its range and checksum continue the one before it (an input may begin before
// the end of the one before, if it ends behind it). A file of all pages is held
// against the checksum of the database too.
//
// Nothing that was written to w may be used before Merge has returned nil. Pages
// are decoded, for their checksums alone, on all cores; memory is some
// MiB and does not depend on the size of the inputs.
func Merge(ctx context.Context, w io.Writer, inputs []Input, opts MergeOptions) (m Merged, err error) {
	mg := &merger{inputs: make([]*input, len(inputs)), opts: opts}
	defer func() { err = errors.Join(err, mg.close()) }()
	if len(inputs) == 0 {
		return m, errors.New("merge: no files")
	}
	if err := mg.open(ctx, inputs); err != nil {
		return m, err
	}
	if err := mg.start(w); err != nil {
		return m, err
	}
	if err := mg.pages(ctx); err != nil {
		return m, err
	}
	return mg.finish()
}

// merger is one merge.
type merger struct {
	inputs []*input
	opts   MergeOptions
	out    *ltxfile.Writer
	header ltx.Header
	shift  *ltxfile.Shift
	sum    ltx.Checksum // of the pages written, as if they were the database
	n      int64
}

type input struct {
	name  string
	index int
	r     io.ReadCloser
	scan  *ltxfile.Scanner
	sum   ltxfile.Sum
	frame ltxfile.Frame // next one
}

func (in *input) fault(err error) error {
	if err == nil {
		return nil
	}
	return &InputError{Index: in.index, Name: in.name, Err: err}
}

func (mg *merger) open(ctx context.Context, inputs []Input) error {
	for i, from := range inputs {
		in := &input{name: from.Name, index: i}
		mg.inputs[i] = in
		r, err := from.Open(ctx)
		if err != nil {
			return in.fault(err)
		}
		in.r = r
		if in.scan, err = ltxfile.NewScanner(r); err != nil {
			return in.fault(err)
		}
		in.sum = in.scan.Sum()
		if i > 0 {
			if err := follows(mg.inputs[i-1].scan.Header(), in.scan.Header()); err != nil {
				return in.fault(err)
			}
		}
	}
	return nil
}

// follows checks what headers tell of two inputs in a row.
func follows(prev, next ltx.Header) error {
	if next.PageSize != prev.PageSize {
		return fmt.Errorf("%w: page size %d after %d", ErrChain, next.PageSize, prev.PageSize)
	}
	if next.MinTXID > prev.MaxTXID+1 || next.MaxTXID <= prev.MaxTXID {
		return fmt.Errorf("%w: %s-%s after TXID %s", ErrChain, next.MinTXID, next.MaxTXID, prev.MaxTXID)
	}
	return nil
}

// timestamp is the latest of the inputs. They go back where a publisher with
// another clock took over, and in Litestream's files when its clock does, or while
// it makes a snapshot: one bears the time at which it was begun to be written.
func (mg *merger) timestamp() (last int64) {
	for _, in := range mg.inputs {
		last = max(last, in.scan.Header().Timestamp)
	}
	return last
}

func (mg *merger) start(w io.Writer) (err error) {
	first, last := mg.inputs[0].scan.Header(), mg.inputs[len(mg.inputs)-1].scan.Header()
	mg.header = ltx.Header{
		Version:          ltx.Version,
		PageSize:         first.PageSize,
		Commit:           last.Commit,
		MinTXID:          first.MinTXID,
		MaxTXID:          last.MaxTXID,
		Timestamp:        mg.timestamp(),
		PreApplyChecksum: first.PreApplyChecksum,
	}
	if mg.opts.Snapshot {
		mg.header.MinTXID, mg.header.PreApplyChecksum = 1, 0
	}
	// Of a snapshot the checksum is known when it is written.
	if mg.opts.NoChecksums || !mg.opts.Snapshot && (first.NoChecksum() || last.NoChecksum()) {
		mg.header.Flags, mg.header.PreApplyChecksum = ltx.HeaderFlagNoChecksum, 0
	}
	if mg.opts.begun != nil {
		mg.opts.begun(mg.header)
	}
	mg.shift = ltxfile.ShiftOf(mg.header.PageSize)
	mg.sum = ltx.ChecksumFlag
	mg.out, err = ltxfile.NewWriter(w, mg.header, mg.opts.SpillDir)
	return err
}

// batch is some frames in the order of the merge, on their way through the
// stages: gathered, decoded, written.
type batch struct {
	buf    []byte
	frames []batched
	done   chan error // decoded
}

type batched struct {
	in    *input
	pgno  uint32
	end   int // of the frame in buf
	crc   uint64
	wins  bool
	begin int
}

func (f *batched) frame(b *batch) ltxfile.Frame {
	return ltxfile.Frame{Pgno: f.pgno, Raw: b.buf[f.begin:f.end]}
}

const (
	batchBytes  = 512 << 10
	batchFrames = 512
)

// pages runs the stages: one goroutine gathers, some decode, this one writes.
func (mg *merger) pages(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	workers := runtime.GOMAXPROCS(0)
	work := make(chan *batch)
	ordered := make(chan *batch, 2*workers)
	free := make(chan *batch, 2*workers+2) // every batch there is fits
	for range cap(free) {
		free <- new(batch)
	}
	g.Go(func() error {
		defer close(work)
		defer close(ordered)
		return mg.gather(ctx, free, work, ordered)
	})
	for range workers {
		g.Go(func() error {
			page := make([]byte, mg.header.PageSize)
			for b := range work {
				b.done <- b.decode(page)
			}
			return nil
		})
	}
	g.Go(func() error {
		for b := range ordered {
			if err := <-b.done; err != nil {
				return err
			}
			if err := mg.write(b); err != nil {
				return err
			}
			free <- b
		}
		return nil
	})
	return g.Wait()
}

// gather fills batches until no input has a frame left.
func (mg *merger) gather(ctx context.Context, free <-chan *batch, work, ordered chan<- *batch) error {
	var h frontier
	for _, in := range mg.inputs {
		if err := h.advance(in); err != nil {
			return err
		}
	}
	heap.Init(&h)
	for len(h) > 0 {
		var b *batch
		select {
		case b = <-free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if err := mg.fill(b, &h); err != nil {
			return err
		}
		b.done = make(chan error, 1)
		select {
		case work <- b:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		select {
		case ordered <- b:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// fill takes frames off the inputs: by page number, the newest input first.
func (mg *merger) fill(b *batch, h *frontier) error {
	b.buf, b.frames = b.buf[:0], b.frames[:0]
	for len(*h) > 0 && len(b.buf) < batchBytes && len(b.frames) < batchFrames {
		pgno := (*h)[0].frame.Pgno
		for wins := pgno <= mg.header.Commit; len(*h) > 0 && (*h)[0].frame.Pgno == pgno; wins = false {
			in := (*h)[0]
			begin := len(b.buf)
			b.buf = append(b.buf, in.frame.Raw...)
			b.frames = append(b.frames, batched{in: in, pgno: pgno, begin: begin, end: len(b.buf), wins: wins})
			if err := h.next(in); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *batch) decode(page []byte) error {
	for i := range b.frames {
		f := &b.frames[i]
		if err := f.frame(b).Decode(page); err != nil {
			return f.in.fault(err)
		}
		f.crc = ltxfile.DataCRC(page)
	}
	return nil
}

func (mg *merger) write(b *batch) error {
	for i := range b.frames {
		f := &b.frames[i]
		frame := f.frame(b)
		f.in.sum.Page(frame, f.crc)
		if !f.wins {
			continue
		}
		if err := mg.out.Frame(frame, f.crc); err != nil {
			return fmt.Errorf("write page %d: %w", f.pgno, err)
		}
		mg.sum = ltx.ChecksumFlag | (mg.sum ^ ltxfile.PageSum(mg.shift, f.pgno, f.crc))
		mg.n++
	}
	return nil
}

func (mg *merger) finish() (m Merged, err error) {
	var post ltx.Checksum
	for i, in := range mg.inputs {
		t, err := in.scan.Finish(in.sum)
		if err != nil {
			return m, in.fault(err)
		}
		hdr := in.scan.Header()
		if i > 0 && hdr.MinTXID == mg.inputs[i-1].scan.Header().MaxTXID+1 && hdr.PreApplyChecksum != 0 && post != 0 && hdr.PreApplyChecksum != post {
			return m, in.fault(fmt.Errorf("%w: it begins at checksum %s, TXID %s ended at %s", ErrChain, hdr.PreApplyChecksum, hdr.MinTXID-1, post))
		}
		post = t.PostApplyChecksum
	}
	m = Merged{Header: mg.header, Pre: mg.inputs[0].scan.Header().PreApplyChecksum, Post: post, Pages: mg.n}
	if mg.header.MinTXID == 1 {
		if err := mg.checkWhole(post); err != nil {
			return m, err
		}
		m.Pre = 0
		if post == 0 { // the pages are all there, so we know it
			post, m.Post = mg.sum, mg.sum
		}
	}
	if mg.header.NoChecksum() {
		post = 0
	}
	m.Trailer, m.Size, err = mg.out.Finish(post)
	return m, err
}

// checkWhole holds a file of all pages against the database's checksum.
func (mg *merger) checkWhole(post ltx.Checksum) error {
	want := ltxfile.PageCount(mg.header)
	last := mg.inputs[len(mg.inputs)-1]
	if mg.n != want {
		return last.fault(fmt.Errorf("%w: %d of %d pages are there", ErrChain, mg.n, want))
	}
	if post != 0 && mg.sum != post {
		return last.fault(fmt.Errorf("%w: the pages add up to %s, the database had %s", ErrChain, mg.sum, post))
	}
	return nil
}

func (mg *merger) close() error {
	var errs []error
	if mg.out != nil {
		errs = append(errs, mg.out.Abort())
	}
	for _, in := range mg.inputs {
		if in != nil && in.r != nil {
			if err := in.r.Close(); err != nil {
				errs = append(errs, in.fault(err))
			}
		}
	}
	return errors.Join(errs...)
}

// frontier is the next frame of each input that has one: the lowest page number
// first, of equal ones that of the newest input.
type frontier []*input

func (h frontier) Len() int      { return len(h) }
func (h frontier) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h frontier) Less(i, j int) bool {
	if h[i].frame.Pgno != h[j].frame.Pgno {
		return h[i].frame.Pgno < h[j].frame.Pgno
	}
	return h[i].index > h[j].index
}
func (h *frontier) Push(x any) { *h = append(*h, x.(*input)) }
func (h *frontier) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// advance reads the first frame of an input and adds it.
func (h *frontier) advance(in *input) (err error) {
	in.frame, err = in.scan.Next()
	if err == io.EOF {
		return nil
	}
	*h = append(*h, in)
	return in.fault(err)
}

// next replaces the frame of the first input by its next one.
func (h *frontier) next(in *input) (err error) {
	in.frame, err = in.scan.Next()
	switch {
	case err == io.EOF:
		heap.Pop(h)
		return nil
	case err != nil:
		return in.fault(err)
	}
	heap.Fix(h, 0)
	return nil
}
