package feed

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
)

// incoming is a large file that is handed out while its parts are received, in
// the goroutine of whoever reads it. It is read once, from its start to its end,
// and verified by nobody but its reader.
type incoming struct {
	f        *Feed
	file     *File
	key      wire.Meta
	partSize int
	next     int    // the part it waits for
	data     []byte // of the part before that
	start    int64  // its offset in the file
}

// Settings of how a file of many parts is received. A nats-server keeps a block of
// messages (8 MB) in memory for ten seconds once it was read while it was written.
// A reader that stays a block behind keeps the server small.
const (
	lagFrom     = 32 // parts, from which on it matters
	lagParts    = 12 // of 1 MB at most, to stay behind
	lagPull     = 4  // messages
	lagLook     = 10 * time.Millisecond
	lagPatience = 250 * time.Millisecond // with a publisher that pauses
)

// errIrregular says that something else than the next part came. The file is
// received again, joined and verified before it is handed out.
var errIrregular = errors.New("not the next part of the file")

// receives reports whether the file that begins with m at seq is to be handed out
// while it is received.
func (f *Feed) receives(m wire.Meta, seq uint64) bool {
	return f.cfg.Incoming && m.Part == 1 && m.Parts > 1 && m.Size > f.cfg.MemoryLimit &&
		seq != f.irregular && !f.asm.busy() && f.fits(m)
}

// receiveFile hands out the file that begins with d.
func (f *Feed) receiveFile(d delivery, m wire.Meta) (*File, error) {
	n := len(d.msg.Data())
	if stream.CheckSize(m, n) != nil {
		f.irregular, f.lag = d.seq, false
		return f.join(d, m)
	}
	if m.Parts >= lagFrom && !f.con.lags {
		f.disconnect() // the first part comes again
		f.lag = true
		return nil, nil
	}
	file := &File{Meta: m, FirstSeq: d.seq}
	in := &incoming{f: f, file: file, key: stream.FileOf(m), partSize: n, next: 2, data: d.msg.Data()}
	file.in, f.in = in, in
	return file, nil
}

// reader returns a reader of the file whose waits end with ctx.
func (in *incoming) reader(ctx context.Context) *io.SectionReader {
	return io.NewSectionReader(readAt(func(b []byte, off int64) (int, error) { return in.readAt(ctx, b, off) }), 0, in.file.Meta.Size)
}

type readAt func(b []byte, off int64) (int, error)

func (f readAt) ReadAt(b []byte, off int64) (int, error) { return f(b, off) }

func (in *incoming) readAt(ctx context.Context, b []byte, off int64) (n int, err error) {
	for n < len(b) {
		at := off + int64(n) - in.start
		switch {
		case at < 0:
			return n, fmt.Errorf("read at %d of an incoming file that was read to %d", off, in.start)
		case at < int64(len(in.data)):
			n += copy(b[n:], in.data[at:])
		case in.next > in.key.Parts:
			return n, io.EOF
		default:
			if err := in.receive(ctx); err != nil {
				return n, fmt.Errorf("receive part %d/%d of TXID %s: %w", in.next, in.key.Parts, in.key.Min, err)
			}
		}
	}
	return n, nil
}

// receive waits for the next part.
func (in *incoming) receive(ctx context.Context) error {
	f := in.f
	if f.in != in || f.con == nil {
		return errResync
	}
	if err := f.stayBehind(ctx, in.key.Parts-in.next+1); err != nil {
		return err
	}
	d, err := f.receive(ctx)
	if err != nil {
		return err
	}
	m, err := wire.ParseMeta(d.msg.Headers())
	_, want := wire.PartRange(in.key.Size, in.partSize, in.next)
	if err != nil || d.msg.Subject() != f.cfg.DB.DataSubject() || stream.FileOf(m) != in.key || m.Part != in.next || int64(len(d.msg.Data())) != want {
		f.irregular = in.file.FirstSeq
		return errIrregular
	}
	in.start += int64(len(in.data))
	in.data = d.msg.Data()
	if in.next++; in.next > in.key.Parts {
		in.file.LastSeq, in.file.Stored = d.seq, d.at
		f.in = nil
		f.handed(in.file)
	}
	return nil
}

// stayBehind waits until the stream holds enough messages beyond the last one
// received, or all that are left of the file.
func (f *Feed) stayBehind(ctx context.Context, left int) error {
	if !f.con.lags {
		return nil
	}
	want := uint64(min(lagParts, left))
	moved, last := time.Now(), uint64(0)
	for f.con.ahead < want {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lagLook):
		}
		state, err := f.cfg.Stream.State(ctx)
		if err != nil {
			return err
		}
		f.con.ahead = state.Last - min(state.Last, f.con.seen)
		if now := time.Now(); state.Last != last {
			moved, last = now, state.Last
		} else if now.Sub(moved) > lagPatience {
			return nil
		}
	}
	return nil
}

// close ends the reading. A file that was not received whole comes again.
func (in *incoming) close() {
	in.data = nil
	f := in.f
	if f.in == in {
		f.in = nil
	}
	f.lag = false
	f.disconnect()
}
