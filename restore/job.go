package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/objstore/levels"
)

// Job is a restore whose files are chosen and whose pages are found.
type Job struct {
	// Plan are the files in the order of their application.
	Plan []File
	// Header and Post are the last file's header and the database's checksum
	// after it (0: the file does not say). The timestamp in it is the point's.
	Header ltx.Header
	Post   ltx.Checksum

	Pages    int64 // to be written
	Bytes    int64 // to be fetched by Run
	Requests int64 // that Run will make

	catalog  *Catalog
	files    []*planned
	pages    []location // by page number - 1
	segments []segment
	opts     Options
}

// Options of a restore. Zero values mean the defaults.
type Options struct {
	Parallelism int // requests at a time, default DefaultParallelism
	// Progress is told the bytes fetched so far, from several goroutines.
	Progress func(fetched int64)
}

// DefaultParallelism is how many ranges are fetched at a time.
const DefaultParallelism = 8

// planned is a file of the plan with what its ends say.
type planned struct {
	File
	source  Source
	header  ltx.Header
	start   int64 // offset of the page index
	trailer ltx.Trailer
	head    []byte // the header as it is stored
	// tally proves the file where nothing proves the database: all of it is read
	// then. nil elsewhere.
	tally *ltxfile.Tally
}

func (p *planned) key() string { return p.source.Key(p.File.File) }

func (p *planned) fault(err error) error {
	if err == nil {
		return nil
	}
	broken, found := errors.AsType[*levels.DamageError](err) // by the store itself
	if found {
		err = broken.Err
	}
	if found || errors.Is(err, ltxfile.ErrDamaged) {
		return &DamageError{File: p.File, Key: p.key(), Err: err}
	}
	return fmt.Errorf("read %s: %w", p.key(), err)
}

// DamageError says that a file of the plan is not what it should be. Nothing of
// it was used.
type DamageError struct {
	File File
	Key  string
	Err  error
}

func (e *DamageError) Error() string { return fmt.Sprintf("damaged file %s: %v", e.Key, e.Err) }

func (e *DamageError) Unwrap() error { return e.Err }

// Prepare plans the way to a TXID and reads the ends of the files on it: two or
// three requests each.
func (c *Catalog) Prepare(ctx context.Context, to ltx.TXID, opts Options) (*Job, error) {
	if opts.Parallelism <= 0 {
		opts.Parallelism = DefaultParallelism
	}
	if opts.Progress == nil {
		opts.Progress = func(int64) {}
	}
	plan, err := Plan(c.Files, to)
	if err != nil {
		return nil, err
	}
	job := &Job{Plan: plan, catalog: c, opts: opts}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(opts.Parallelism)
	job.files = make([]*planned, len(plan))
	for i, f := range plan {
		job.files[i] = &planned{File: f, source: c.Sources[f.Source]}
		g.Go(func() error { return job.files[i].readEnds(gctx) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if err := job.checkChain(); err != nil {
		return nil, err
	}
	return job, job.locate(ctx)
}

// read fills b with what lies at offset.
func (p *planned) read(ctx context.Context, offset int64, b []byte) (err error) {
	r, err := p.source.Open(ctx, p.File.File, offset, int64(len(b)))
	if err != nil {
		return p.fault(err)
	}
	defer func() { err = errors.Join(err, p.fault(r.Close())) }()
	n, err := io.ReadFull(r, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = fmt.Errorf("%w: it has %d bytes at %d, want %d: %w", ltxfile.ErrDamaged, n, offset, len(b), io.ErrUnexpectedEOF)
	}
	return p.fault(err)
}

// readEnds reads header, trailer and where the page index begins.
func (p *planned) readEnds(ctx context.Context) error {
	if p.Size < ltx.HeaderSize+ltxfile.TailSize {
		return p.fault(fmt.Errorf("%w: %d bytes are no LTX file", ltxfile.ErrDamaged, p.Size))
	}
	p.head = make([]byte, ltx.HeaderSize)
	if err := p.read(ctx, 0, p.head); err != nil {
		return err
	}
	hdr, err := ltxfile.ParseHeader(p.head)
	if err == nil && (hdr.MinTXID != p.Min || hdr.MaxTXID != p.Max) {
		err = fmt.Errorf("%w: it holds %s-%s", ltxfile.ErrDamaged, hdr.MinTXID, hdr.MaxTXID)
	}
	if err != nil {
		return p.fault(err)
	}
	p.header = hdr
	tail := make([]byte, ltxfile.TailSize)
	if err := p.read(ctx, p.Size-ltxfile.TailSize, tail); err != nil {
		return err
	}
	if err := p.trailer.UnmarshalBinary(tail[ltxfile.TailSize-ltx.TrailerSize:]); err != nil {
		return p.fault(fmt.Errorf("%w: trailer: %w", ltxfile.ErrDamaged, err))
	}
	if err := p.trailer.Validate(p.header); err != nil {
		return p.fault(fmt.Errorf("%w: trailer: %w", ltxfile.ErrDamaged, err))
	}
	p.start, err = ltxfile.IndexStart(tail, p.Size)
	return p.fault(err)
}

// ChainError says that two files in a row are of different histories.
type ChainError struct {
	Key, Before string // names of the files
	Reason      string
}

func (e *ChainError) Error() string {
	return fmt.Sprintf("%s does not continue %s: %s", e.Key, e.Before, e.Reason)
}

func (j *Job) checkChain() error {
	for i, p := range j.files[1:] {
		prev := j.files[i]
		fault := &ChainError{Key: p.key(), Before: prev.key()}
		if p.header.PageSize != prev.header.PageSize {
			fault.Reason = fmt.Sprintf("page size %d after %d", p.header.PageSize, prev.header.PageSize)
			return fault
		}
		pre := p.header.PreApplyChecksum
		if p.Min == prev.Max+1 && pre != 0 && prev.trailer.PostApplyChecksum != 0 && pre != prev.trailer.PostApplyChecksum {
			fault.Reason = fmt.Sprintf("it begins at checksum %s, the other ends at %s", pre, prev.trailer.PostApplyChecksum)
			return fault
		}
	}
	end := j.files[len(j.files)-1]
	j.Header, j.Post = end.header, end.trailer.PostApplyChecksum
	return nil
}

// location is where the winning version of a page lies.
type location struct {
	offset int64
	size   uint32
	file   int32 // index into files + 1; 0: nowhere yet
}

// locate reads the page indexes, the newest file first, until every page of the
// database has its place, and cuts what wins into segments. Where the plan leads to
// no checksum of the database only whole files prove themselves: then all indexes
// are read, and all frames make segments.
func (j *Job) locate(ctx context.Context) error {
	j.pages = make([]location, j.Header.Commit)
	missing := ltxfile.PageCount(j.Header)
	whole := make([][]ltxfile.Entry, len(j.files))
	for i := len(j.files) - 1; i >= 0 && (missing > 0 || j.Post == 0); i-- {
		p := j.files[i]
		if j.Post == 0 {
			p.tally = ltxfile.NewTally(p.head, p.header.PageSize)
		}
		err := p.eachEntry(ctx, func(e ltxfile.Entry) {
			if j.place(e, i) {
				missing--
			}
			if p.tally != nil {
				p.tally.Expect(e)
				whole[i] = append(whole[i], e)
			}
		})
		if err != nil {
			return err
		}
	}
	if missing > 0 {
		return &ChainError{Key: j.files[0].key(), Before: "nothing", Reason: fmt.Sprintf("%d pages are in no file", missing)}
	}
	if j.Post != 0 {
		j.segments = cut(winners(j.pages, len(j.files)), true)
	} else {
		j.segments = cut(whole, false)
	}
	for _, s := range j.segments {
		j.Bytes += s.size
	}
	j.Pages, j.Requests = ltxfile.PageCount(j.Header), int64(len(j.segments))
	return nil
}

// eachEntry reads the page index.
func (p *planned) eachEntry(ctx context.Context, see func(ltxfile.Entry)) error {
	r, err := p.source.Open(ctx, p.File.File, p.start, p.Size-ltxfile.TailSize-p.start)
	if err != nil {
		return p.fault(err)
	}
	err = ltxfile.ReadIndex(r, p.start, p.header.PageSize, p.header.Commit, see)
	return p.fault(errors.Join(err, r.Close()))
}

// place notes where a page lies, unless a newer file has it.
func (j *Job) place(e ltxfile.Entry, file int) bool {
	if e.Pgno > j.Header.Commit || j.pages[e.Pgno-1].file != 0 || e.Pgno == j.Header.LockPgno() {
		return false
	}
	j.pages[e.Pgno-1] = location{offset: e.Offset, size: uint32(e.Size), file: int32(file) + 1}
	return true
}

// wins reports whether the database has page pgno from that file.
func (j *Job) wins(pgno uint32, file int) bool {
	return pgno <= j.Header.Commit && j.pages[pgno-1].file == int32(file)+1
}

// counter adds up what was fetched.
type counter struct {
	n    atomic.Int64
	tell func(int64)
}

func (c *counter) add(n int64) { c.tell(c.n.Add(n)) }

// TimeOf is the timestamp of a file's last transaction, UTC.
func TimeOf(hdr ltx.Header) time.Time { return time.UnixMilli(hdr.Timestamp).UTC() }
