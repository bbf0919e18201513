package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/wire"
)

const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second
	askEvery   = 30 * time.Second

	memoryLimit = 1 << 20 // bytes of one LTX file; larger ones wait on disk
	readAhead   = 4 << 20 // bytes of messages
)

// lane archives one database to one destination. Its loop owns everything but
// what is under mu.
type lane struct {
	cfg      *Config
	dest     Destination
	db       wire.DB
	dir      string // of the stage
	log      *slog.Logger
	tokens   tokens
	str      *stream.Stream
	progress *progress

	comp   *compactor.Compactor
	feed   *feed.Feed
	stage  stage
	pos    ltx.Pos // up to which files were staged
	done   ltx.Pos // up to which files are archived
	seq    uint64  // last sequence of the file at pos, 0: not known
	sought bool
	broken bool // the stream does not continue pos: a base is needed
	asked  time.Time

	created time.Time // of the stream, before files were sought in it

	mu struct {
		sync.Mutex
		comp *compactor.Compactor // for the keeper; nil: not read yet
		feed *feed.Feed           // for Status; nil: not open
		Status
		oldest time.Time // when the stream stored the oldest file that waits here
	}
}

// tokens bound what all lanes do at one time: a flush waits for the storage, a
// merge is work. No flush waits for merges.
type tokens struct{ flushes, merges chan struct{} }

// flushesPerMerge is how many flushes may be under way for each merge.
const flushesPerMerge = 4

func newTokens(merges int) tokens {
	return tokens{flushes: make(chan struct{}, flushesPerMerge*merges), merges: make(chan struct{}, merges)}
}

func newLane(cfg *Config, dest Destination, db wire.DB, tokens tokens, str *stream.Stream, p *progress) *lane {
	l := &lane{
		cfg: cfg, dest: dest, db: db, tokens: tokens, str: str, progress: p,
		dir: filepath.Join(cfg.StageDir, dest.Name, string(db)),
		log: cfg.Logger.With("db", string(db), "dest", dest.Name),
	}
	l.mu.Status = Status{DB: db, Destination: dest.Name, URL: dest.Archive.String(), State: StateStarting}
	return l
}

// run archives until ctx ends; what waits then is flushed.
func (l *lane) run(ctx context.Context) (err error) {
	l.stage.dir = l.dir
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.loop(gctx) })
	g.Go(func() error { l.keepOrder(gctx); return nil })
	err = g.Wait()
	l.setState(StateStopped)
	return errors.Join(err, l.stage.close())
}

// loop does step after step and waits out what passes; a lane never gives up,
// for what is wrong with it can be mended outside.
func (l *lane) loop(ctx context.Context) error {
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval, wait.MaxInterval = retryFirst, retryMost
	for ctx.Err() == nil {
		follows := l.sought && !l.broken
		err := l.step(ctx)
		if ctx.Err() != nil {
			break
		}
		if err == nil {
			l.recovered()
			if follows { // a seek alone may be followed by the same error, again and again
				wait.Reset()
			}
			continue
		}
		l.failed(err)
		select {
		case <-ctx.Done():
		case <-time.After(wait.NextBackOff()):
		}
	}
	return l.stop(ctx)
}

// flushTimeout bounds the last flush of a lane that ends.
const flushTimeout = 20 * time.Second

// stop flushes what waits, unless another process has taken over, and closes.
func (l *lane) stop(ctx context.Context) error {
	var errs []error
	if !errors.Is(context.Cause(ctx), errLeaseLost) {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTimeout)
		defer cancel()
		if err := l.flush(last); err != nil {
			l.log.Warn("last flush failed, the stream still has what it would have written", "err", err)
		}
	}
	if l.feed != nil {
		errs = append(errs, l.feed.Close())
	}
	return errors.Join(errs...)
}

// step does the next thing.
func (l *lane) step(ctx context.Context) error {
	switch {
	case l.comp == nil:
		return l.open(ctx)
	case l.feed == nil:
		return l.openFeed()
	case l.broken:
		return l.seekBase(ctx)
	case !l.sought:
		return l.seek(ctx)
	}
	if l.comp.Lost() != nil {
		l.ask(ctx) // only a new base leads on
	}
	if l.untilFlush() <= 0 {
		return l.flush(ctx)
	}
	file, err := l.next(ctx)
	if file == nil || err != nil {
		return err
	}
	return errors.Join(l.take(ctx, file), file.Close())
}

// open reads what the archive has: that is how far we are.
func (l *lane) open(ctx context.Context) error {
	l.setState(StateReading)
	if err := os.MkdirAll(l.dir, 0o755); err != nil {
		return fmt.Errorf("make stage directory: %w", err)
	}
	comp, err := compactor.New(ctx, compactor.Config{
		Archive: l.dest.Archive, DB: l.dest.folder(l.db), Schedule: l.cfg.Schedule, Policy: l.cfg.Policy,
		NoChecksums: l.dest.NoChecksums, SpillDir: l.dir, Logger: l.log, Metrics: l.cfg.Metrics.of(l),
	})
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	end, pos, err := comp.Head(ctx)
	if err != nil {
		return err
	}
	l.pos = pos
	l.comp, l.done = comp, l.pos
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.comp = comp
	l.mu.Archived, l.mu.ArchivedTime = l.pos.TXID, end.Timestamp
	return nil
}

func (l *lane) openFeed() error {
	f, err := feed.New(feed.Config{
		Stream: l.str, JS: l.cfg.JS, DB: l.db, Durable: "archive-" + l.dest.Name + "-" + string(l.db),
		SpoolDir: l.dir, MemoryLimit: memoryLimit, Buffer: readAhead, Oldest: true, Logger: l.log,
		OnDamage: func(err error) { l.cfg.Metrics.failed(l, err); l.log.Warn("message skipped", "err", err) },
	})
	if err != nil {
		return err
	}
	l.feed = f
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.feed = f
	return nil
}

// seek goes to where the archive ends in the stream.
func (l *lane) seek(ctx context.Context) error {
	l.setState(StateSeeking)
	err := l.identify(ctx)
	if err == nil {
		err = l.feed.Seek(ctx, l.pos, l.seq)
	}
	if err == nil {
		err = l.checkForeign(ctx)
	}
	if err == nil {
		l.sought = true
		l.setState(StateArchiving)
		return nil
	}
	return l.chain(ctx, err)
}

// identify notes which stream files are sought in from now on.
func (l *lane) identify(ctx context.Context) error {
	state, err := l.str.State(ctx)
	l.created = state.Created
	return err
}

// errForeign says that a stream is not the one that continues the archive.
var errForeign = errors.New("the stream is of another history, and nothing of it is archived here: start ltx-pub with --from-litestream so that it continues this archive, or archive to a place of its own")

// checkForeign refuses a stream that ends at or before the end of an archive whose
// newest file bears no database checksum: Litestream's, mostly. Behind such an end
// the archive goes on with the next full file, which is there at once when ltx-pub
// took the numbers over.
func (l *lane) checkForeign(ctx context.Context) error {
	if l.pos.TXID == 0 || l.pos.PostApplyChecksum != 0 {
		return nil
	}
	head, err := l.feed.Head(ctx)
	if err != nil {
		return err
	}
	if head.Data != nil && head.Data.Meta.Max <= l.pos.TXID {
		return fmt.Errorf("archive ends at TXID %s without a checksum, the stream at %s: %w", l.pos.TXID, head.Data.Meta.Max, errForeign)
	}
	l.log.Info("the archive's newest file bears no database checksum, going on with the next full file", "archived", l.pos.TXID)
	return nil
}

// chain sorts the errors of the feed: where the stream does not continue what is
// archived, a base is needed.
func (l *lane) chain(ctx context.Context, err error) error {
	_, gap := errors.AsType[*feed.GapError](err)
	_, fork := errors.AsType[*feed.ForkError](err)
	switch {
	case gap || fork:
		l.log.Error("the stream does not continue the archive, which goes on behind a snapshot", "archived", l.pos, "err", err)
		l.broken = true
	case errors.Is(err, feed.ErrNoBase):
		l.ask(ctx)
	}
	l.sought = false
	return fmt.Errorf("follow stream: %w", err)
}

// seekBase goes to the newest full file behind the archive's end.
func (l *lane) seekBase(ctx context.Context) error {
	if err := l.flush(ctx); err != nil {
		return err
	}
	l.setState(StateWaiting)
	err := l.identify(ctx)
	if err == nil {
		err = l.feed.SeekBase(ctx, l.pos.TXID)
	}
	if errors.Is(err, feed.ErrNoBase) {
		err = l.askBehind(ctx, err)
	}
	if err != nil {
		return fmt.Errorf("look for a full file: %w", err)
	}
	l.broken, l.sought = false, true
	l.setState(StateArchiving)
	return nil
}

// askBehind asks for a full file, unless even the next one would not lie behind the
// archive's end: then the stream began anew.
func (l *lane) askBehind(ctx context.Context, cause error) error {
	head, err := l.feed.Head(ctx)
	if err != nil {
		return errors.Join(cause, err)
	}
	if head.Data != nil && head.Data.Meta.Max < l.pos.TXID {
		return fmt.Errorf("archive ends at TXID %s, the stream at %s: %w", l.pos.TXID, head.Data.Meta.Max, errForeign)
	}
	l.ask(ctx)
	return cause
}

// ask asks the publisher for a full file, now and then.
func (l *lane) ask(ctx context.Context) {
	if l.cfg.AskFull == nil || time.Since(l.asked) < askEvery {
		return
	}
	l.asked = time.Now()
	if err := l.cfg.AskFull(ctx, l.db); err != nil {
		l.log.Warn("publisher cannot be asked for a full file", "err", err)
		return
	}
	l.log.Info("publisher asked for a full file")
}

// errDue ends the wait for files when it is time to flush.
var errDue = errors.New("time to flush")

// next waits for a file until it is time to flush: then it returns none.
func (l *lane) next(ctx context.Context) (*feed.File, error) {
	wait, cancel := context.WithTimeoutCause(ctx, l.untilFlush(), errDue)
	defer cancel()
	file, err := l.feed.Next(wait)
	switch {
	case err == nil:
		return file, nil
	case ctx.Err() == nil && errors.Is(context.Cause(wait), errDue) && wait.Err() != nil:
		return nil, nil
	}
	return nil, l.chain(ctx, err)
}

// untilFlush is how long what waits may wait still.
func (l *lane) untilFlush() time.Duration {
	switch {
	case l.stage.empty():
		return l.cfg.FlushInterval
	case l.stage.size >= l.cfg.StageLimit:
		return 0
	}
	return time.Until(l.stage.since.Add(l.cfg.FlushInterval))
}

// take stages a file, or makes a snapshot of one that is a new base.
func (l *lane) take(ctx context.Context, file *feed.File) error {
	m := file.Meta
	if m.Full && (m.PrePos() != l.pos || l.comp.Lost() != nil || l.comp.End().Max == 0) {
		return l.takeBase(ctx, file)
	}
	if err := l.stage.add(ctx, file); err != nil {
		l.sought = false // the feed has gone past it
		return errors.Join(err, l.flush(ctx))
	}
	l.pos, l.seq = m.PostPos(), file.LastSeq
	l.staged(file)
	if len(l.stage.files) < foldAt {
		return nil
	}
	if err := l.stage.fold(ctx); err != nil {
		l.log.Warn("staged files are flushed early", "err", err)
		return l.flush(ctx)
	}
	return nil
}

// takeBase makes a snapshot of a full file; level 1 goes on behind it.
func (l *lane) takeBase(ctx context.Context, file *feed.File) error {
	err := l.flush(ctx)
	if err == nil {
		err = l.stage.add(ctx, file)
	}
	if err == nil {
		err = l.store(ctx, l.comp.StoreBase)
	}
	if err != nil {
		return l.restage(err)
	}
	l.pos, l.seq = file.Meta.PostPos(), file.LastSeq
	l.log.Info("snapshot made of a full file", "txid", file.Meta.Max)
	return nil
}

// restage begins anew behind what is archived: what was staged is not whole, or
// the feed has gone past it.
func (l *lane) restage(err error) error {
	l.pos, l.seq, l.sought = l.done, 0, false
	return errors.Join(err, l.stage.clear())
}

// flush writes what waits to level 1.
func (l *lane) flush(ctx context.Context) error {
	if l.stage.empty() {
		return nil
	}
	err := l.store(ctx, l.comp.StoreFirst)
	if errors.Is(err, ltxfile.ErrDamaged) && ctx.Err() == nil {
		return l.restage(fmt.Errorf("the stage is damaged, reading the stream again: %w", err))
	}
	return err
}

type storeFunc func(context.Context, []compactor.Input, int64) (levels.File, compactor.Merged, error)

// store writes what is staged, and only then says so.
func (l *lane) store(ctx context.Context, store storeFunc) error {
	select {
	case l.tokens.flushes <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	f, m, err := store(ctx, l.stage.inputs(), l.stage.size)
	<-l.tokens.flushes
	if err != nil {
		return fmt.Errorf("write to the archive: %w", err)
	}
	end := l.stage.end
	if m.Header.MaxTXID != end.pos.TXID || m.Post != end.pos.PostApplyChecksum {
		return fmt.Errorf("write to the archive: it has %s-%s, want %s", m.Header.MaxTXID, m.Post, end.pos)
	}
	l.done = end.pos
	l.archived(f)
	err = l.record(ctx, end)
	return errors.Join(l.stage.clear(), err)
}

// record says how far the archive is. The feed goes on in a stream that was made
// again, whose sequences are other ones: then none is told, and it seeks anew.
func (l *lane) record(ctx context.Context, end endpoint) error {
	state, err := l.str.State(ctx)
	if err != nil {
		return fmt.Errorf("record progress: %w", err)
	}
	if !state.Created.Equal(l.created) {
		l.log.Warn("the stream was made again, nothing of it is trimmed before the next flush", "archived", end.pos)
		end.firstSeq, end.lastSeq, l.sought = 0, 0, false
	}
	return l.progress.put(ctx, l.dest.Name, l.db, end, state.Created)
}

// keepOrder moves files up, makes snapshots and prunes, beside the loop: a large
// merge must not delay the next flush.
func (l *lane) keepOrder(ctx context.Context) {
	tick := time.NewTicker(max(l.cfg.FlushInterval/2, 50*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		comp := l.compactor()
		for did := comp != nil; did; {
			var err error
			if did, err = l.keepStep(ctx, comp); err != nil {
				if ctx.Err() == nil {
					l.log.Warn("archive not put in order, trying again", "err", err)
					l.cfg.Metrics.failed(l, err)
					l.setKeepError(err)
				}
				break
			}
			l.setKeepError(comp.Alarm())
		}
	}
}

func (l *lane) keepStep(ctx context.Context, comp *compactor.Compactor) (bool, error) {
	select {
	case l.tokens.merges <- struct{}{}:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	defer func() { <-l.tokens.merges }()
	return comp.Step(ctx, time.Now())
}
