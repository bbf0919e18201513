package feed

import (
	"context"
	"errors"
	"fmt"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
)

// Next waits for the next file: the one that continues the position, or a
// full file beyond it. The caller owns it and closes it; calling Next again
// says that it was applied. After an error the position is unchanged, and
// calling again tries again:
//
//   - [*GapError], [*ForkError], ErrNoBase: it will come back until Seek goes
//     somewhere else, or the stream offers a full file;
//   - stream.ErrNoStream, and whatever stream.Classify calls transient;
//   - the context's cause.
//
// Messages that are damaged or not ours are skipped and reported to OnDamage.
func (f *Feed) Next(ctx context.Context) (*File, error) {
	if !f.sought {
		return nil, errors.New("next: no position, call Seek first")
	}
	if f.in != nil {
		return nil, errors.New("next: the file handed out last is not closed")
	}
	for resyncs := 0; ; {
		if err := f.connect(ctx); err != nil {
			return nil, err
		}
		d, err := f.receive(ctx)
		if errors.Is(err, errResync) {
			f.disconnect()
			f.stats.resyncs.Add(1)
			if resyncs++; resyncs > maxResyncs {
				return nil, fmt.Errorf("consume stream %s: deliveries are lost (is consumer %s used twice?): %w", f.cfg.Stream.Name(), f.cfg.Durable, err)
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		resyncs = 0
		file, err := f.handle(ctx, d)
		if err != nil {
			f.disconnect()
			return nil, err
		}
		if file != nil {
			return file, nil
		}
	}
}

// maxResyncs are tried in a row before Next gives the caller a chance to wait.
const maxResyncs = 3

// handle deals with one message; a file comes out when it was completed by it.
func (f *Feed) handle(ctx context.Context, d delivery) (*File, error) {
	subject := d.msg.Subject()
	switch subject {
	case f.cfg.DB.DataSubject():
		return f.handleData(d)
	case f.cfg.DB.EpochSubject():
		if err := f.handleClaim(ctx, d); err != nil {
			return nil, err
		}
	default:
		f.damage(d.seq, subject, ErrForeign)
	}
	f.settle(d.seq)
	return nil, nil
}

// settle records that everything up to seq has been dealt with; inside a file
// the sequence stays before its first part, so that a reset brings all back.
func (f *Feed) settle(seq uint64) {
	if !f.asm.busy() {
		f.seq = seq
	}
}

func (f *Feed) handleClaim(ctx context.Context, d delivery) error {
	c, err := wire.ParseClaim(d.msg.Headers())
	if err == nil && c.Epoch <= f.epoch {
		if err := f.forget(ctx, d.seq, c.Epoch); err != nil {
			return err
		}
		if c.Epoch <= f.epoch {
			err = fmt.Errorf("%w: claim %d after %d", ErrStale, c.Epoch, f.epoch)
		}
	}
	if err != nil {
		f.damage(d.seq, d.msg.Subject(), err)
		return nil
	}
	f.log.Info("claim seen", "epoch", c.Epoch, "writer", c.Writer, "host", c.Host, "pid", c.PID, "txid", c.Pos.TXID)
	f.epoch = c.Epoch
	if f.asm.busy() && f.asm.key.Epoch < c.Epoch {
		f.damage(d.seq, d.msg.Subject(), ErrUnfinished)
		f.asm.drop()
	}
	return nil
}

// forget makes epochs begin anew with a claim that the stream holds nothing
// before: it was purged, or dropped all for its age, and its publisher could not
// know how far they had come.
func (f *Feed) forget(ctx context.Context, seq, epoch uint64) error {
	return f.asking(ctx, func(ctx context.Context) error {
		before, err := f.cfg.Stream.ClaimBefore(ctx, f.cfg.DB, seq)
		if err != nil || before != nil {
			return err
		}
		f.epoch, f.posEpoch = epoch-1, min(f.posEpoch, epoch-1)
		return nil
	})
}

func (f *Feed) handleData(d delivery) (*File, error) {
	meta, err := wire.ParseMeta(d.msg.Headers())
	if err == nil && meta.DB != f.cfg.DB {
		err = fmt.Errorf("%w: of database %q", ErrForeign, meta.DB)
	}
	if err != nil {
		f.damage(d.seq, d.msg.Subject(), err)
		f.settle(d.seq)
		return nil, nil
	}
	if err := f.skipped(meta); err != nil {
		f.skip(d, err)
		return nil, nil
	}
	if f.receives(meta, d.seq) {
		return f.receiveFile(d, meta)
	}
	return f.join(d, meta)
}

// errReplay says that a file was handed out before.
var errReplay = errors.New("replay")

// skipped decides by the headers alone whether a message is to be skipped: nil
// when it is not. A file at the position with another checksum, or one of a
// history that began anew, is not: it is wanted as proof.
func (f *Feed) skipped(m wire.Meta) error {
	switch {
	case m.Epoch < f.epoch:
		return ErrStale
	case f.pos.IsZero():
		return nil
	case m.PostPos() == f.pos:
		f.stats.ahead.Store(false)
		return errReplay
	case m.Max < f.pos.TXID && !f.anew(m):
		return errReplay
	}
	return nil
}

// anew reports whether m is the full file of another publisher that claimed
// the database after pos was written, and yet counts from below pos.
func (f *Feed) anew(m wire.Meta) bool {
	return m.Full && f.writer != "" && m.Writer != f.writer && m.Epoch > f.posEpoch
}

// fits reports whether a file may be handed out next.
func (f *Feed) fits(m wire.Meta) bool {
	if m.Full {
		return m.Max > f.pos.TXID
	}
	return !f.pos.IsZero() && m.PrePos() == f.pos
}

// skip passes over a message that skipped named.
func (f *Feed) skip(d delivery, err error) {
	if errors.Is(err, errReplay) {
		f.stats.replayed.Add(1)
	} else {
		f.stats.stale.Add(1)
		f.log.Debug("stale message ignored", "seq", d.seq)
	}
	f.settle(d.seq)
}

// join adds the message to its file, and verifies the file once it is whole.
// What does not fit never disturbs a file that is being joined.
func (f *Feed) join(d delivery, meta wire.Meta) (*File, error) {
	if f.asm.busy() && meta.Part == 1 && meta.Parts > 1 && !f.begins(d, meta) {
		return nil, nil
	}
	first := f.asm.beginOf(meta, d.seq)
	file, err := f.asm.add(part{meta: meta, seq: d.seq, stored: d.at, data: d.msg.Data()})
	if err == nil && file != nil {
		err = stream.Verify(&f.ver, file.body.section(), meta)
	}
	if err != nil {
		if file != nil {
			_ = file.Close()
		}
		if !isDamage(err) {
			return nil, fmt.Errorf("join TXID %s: %w", meta.Min, err)
		}
		f.damage(d.seq, d.msg.Subject(), err)
		if meta.Full && first != 0 {
			f.noteBadBase(first)
		}
		f.settle(d.seq)
		return nil, nil
	}
	if file == nil {
		return nil, nil
	}
	return f.hand(d, file)
}

// begins decides whether the first of several parts replaces the file that is
// being joined: when it is that file again, or one that fits as well.
func (f *Feed) begins(d delivery, meta wire.Meta) bool {
	switch {
	case stream.FileOf(meta) == f.asm.key:
		return true
	case f.fits(meta):
		f.damage(d.seq, d.msg.Subject(), ErrUnfinished)
		return true
	}
	f.damage(d.seq, d.msg.Subject(), ErrForeign)
	return false
}

func isDamage(err error) bool {
	return errors.Is(err, ErrPart) || errors.Is(err, ErrSize) || errors.Is(err, ErrContent) || errors.Is(err, ErrHeader)
}

// hand gives out a verified file if it fits; else it says how the chain broke.
func (f *Feed) hand(d delivery, file *File) (*File, error) {
	m := file.Meta
	if !f.fits(m) {
		_ = file.Close()
		if f.asm.busy() {
			f.damage(d.seq, d.msg.Subject(), ErrForeign)
			return nil, nil
		}
		return nil, f.broken(m)
	}
	if f.asm.busy() {
		f.damage(d.seq, d.msg.Subject(), ErrUnfinished)
		f.asm.drop()
	}
	f.handed(file)
	return file, nil
}

// handed moves the position behind file.
func (f *Feed) handed(file *File) {
	m := file.Meta
	f.before = origin{f.pos, f.posEpoch, f.writer}
	f.seq, f.origin = file.LastSeq, origin{m.PostPos(), m.Epoch, m.Writer}
	f.stats.ahead.Store(false)
	f.stats.files.Add(1)
	f.stats.bytes.Add(uint64(m.Size))
}

// Refuse takes back file, the newest handed out and not closed: it is in its place,
// and yet not what its publisher wrote. Next goes on behind it, from the position
// before it.
func (f *Feed) Refuse(file *File, err error) {
	if file.in != nil { // to be verified before anything is said of it
		f.irregular = file.FirstSeq
		if f.in == nil {
			f.origin = f.before
		}
		return
	}
	f.damage(file.LastSeq, f.cfg.DB.DataSubject(), err)
	if file.Meta.Full {
		f.noteBadBase(file.FirstSeq)
	}
	f.origin = f.before
}

// broken names the break between the position and a file that does not fit.
func (f *Feed) broken(m wire.Meta) error {
	switch {
	case f.pos.IsZero():
		return ErrNoBase
	case m.Min > f.pos.TXID+1:
		return &GapError{DB: f.cfg.DB, Want: f.pos.TXID + 1, Got: m.Min}
	case m.Min == f.pos.TXID+1:
		return &ForkError{DB: f.cfg.DB, Have: f.pos, Got: m.PrePos()}
	}
	return &ForkError{DB: f.cfg.DB, Have: f.pos, Got: m.PostPos()}
}
