package archiver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/wire"
)

// Archiver writes archives of the databases of a stream. Run runs once; Status
// and Ready may be called at any time from any goroutine.
type Archiver struct {
	cfg    Config
	tokens tokens

	mu struct {
		sync.Mutex
		started bool
		opened  bool              // the stream, and what lies beside it
		lanes   map[string]*lane  // by progressKey
		standby map[string]string // why, by destination
	}
}

// New checks cfg. Nothing is opened before Run.
func New(cfg Config) (*Archiver, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("new archiver: %w", err)
	}
	a := &Archiver{cfg: cfg, tokens: newTokens(cfg.Parallelism)}
	a.mu.lanes, a.mu.standby = map[string]*lane{}, map[string]string{}
	return a, nil
}

// Run archives until ctx ends: then it flushes what waits, bounded in time, and
// returns nil. What is not flushed is still in the stream. It waits out whatever
// passes or can be mended outside, a stream that does not exist yet too. Errors: a destination that cannot be listed
// when it begins or is ErrFolder, a denied permission.
func (a *Archiver) Run(ctx context.Context) error {
	if err := a.begin(); err != nil {
		return err
	}
	err := a.run(ctx)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (a *Archiver) begin() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.mu.started {
		return errors.New("archiver runs only once")
	}
	a.mu.started = true
	return nil
}

func (a *Archiver) run(ctx context.Context) error {
	if err := a.probe(ctx); err != nil {
		return err
	}
	str, err := a.openStream(ctx)
	if err != nil {
		return err
	}
	p, err := openProgress(ctx, a.cfg.JS, a.cfg.Stream, str.Config().Replicas)
	if err != nil {
		return str.Explain("STREAM.INFO.KV_"+a.cfg.Stream+"-archive", err)
	}
	var leases jetstream.KeyValue
	if !a.cfg.NoLease {
		if leases, err = leaseBucket(ctx, a.cfg.JS, a.cfg.Stream, a.cfg.LeaseTTL, str.Config().Replicas); err != nil {
			return str.Explain("STREAM.INFO.KV_"+a.cfg.Stream+"-leases", err)
		}
	}
	a.mu.Lock()
	a.mu.opened = true
	a.mu.Unlock()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.follow(ctx, "progress of archives", p.watch) })
	for _, d := range a.cfg.Destinations {
		g.Go(func() error { return a.serve(ctx, d, str, p, leases) })
	}
	if a.cfg.TrimAfter > 0 && str.Config().MaxAge == 0 {
		g.Go(func() error { a.trim(ctx, str, p); return nil })
	}
	return g.Wait()
}

// openStream waits for the stream: whoever publishes first makes it.
func (a *Archiver) openStream(ctx context.Context) (*stream.Stream, error) {
	for told := false; ; told = true {
		str, err := stream.Open(ctx, a.cfg.JS, a.cfg.Stream)
		if err == nil || stream.Classify(err) == stream.Permanent {
			return str, err
		}
		if !told && ctx.Err() == nil {
			a.cfg.Logger.Warn("the stream cannot be opened, waiting for it", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(a.cfg.Discover / 4):
		}
	}
}

// ErrFolder says that a destination for any number of databases is the folder of
// one, whose history would not be continued there.
var ErrFolder = errors.New("it is itself the folder of one database, as Litestream's URLs are")

// probe lists a little of each destination, so that a wrong name or credential
// shows at once.
func (a *Archiver) probe(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, d := range a.cfg.Destinations {
		g.Go(func() error {
			for _, err := range d.Archive.Store().List(ctx, "", "") {
				if err != nil {
					return fmt.Errorf("open archive %s: %w", d.Archive, err)
				}
				break
			}
			if d.DB != "" {
				return nil
			}
			has, err := d.Archive.Has(ctx, levels.Root)
			if has {
				err = ErrFolder
			}
			if err != nil {
				return fmt.Errorf("open archive %s: %w", d.Archive, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// follow runs what lasts again when it breaks off.
func (a *Archiver) follow(ctx context.Context, what string, run func(context.Context) error) error {
	for {
		err := run(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		a.cfg.Logger.Warn("following broke off, trying again", "what", what, "err", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
}

// serve writes one destination whenever this process has its lease.
func (a *Archiver) serve(ctx context.Context, d Destination, str *stream.Stream, p *progress, leases jetstream.KeyValue) error {
	log := a.cfg.Logger.With("dest", d.Name)
	if leases == nil {
		return a.lead(ctx, d, str, p, log)
	}
	l := newLease(leases, d.Name, a.cfg.LeaseTTL, log)
	for {
		revision, err := l.acquire(ctx, func(h holder) { a.setStandby(d, fmt.Sprintf("%s, process %d, writes it", h.Host, h.PID)) })
		if err != nil {
			return err
		}
		a.setStandby(d, "")
		log.Info("writing the archive from now on", "url", d.Archive.String())
		err = a.underLease(ctx, l, revision, func(ctx context.Context) error { return a.lead(ctx, d, str, p, log) })
		if !errors.Is(err, errLeaseLost) {
			l.release(ctx)
			return err
		}
		log.Warn("lease lost, standing by", "err", err)
	}
}

// underLease runs do for as long as the lease is kept.
func (a *Archiver) underLease(ctx context.Context, l *lease, revision uint64, do func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	kept := make(chan error, 1)
	keepCtx, stop := context.WithCancel(context.WithoutCancel(ctx)) // through the last flush
	go func() {
		err := l.keep(keepCtx, revision)
		if errors.Is(err, errLeaseLost) {
			cancel(err)
		}
		kept <- err
	}()
	err := do(ctx)
	stop()
	if lost := <-kept; errors.Is(lost, errLeaseLost) {
		return lost
	}
	return err
}

// lead runs a lane for each database, those that come later too.
func (a *Archiver) lead(ctx context.Context, d Destination, str *stream.Stream, p *progress, log *slog.Logger) error {
	var running sync.WaitGroup
	defer running.Wait()
	known := map[wire.DB]bool{}
	tick := time.NewTicker(a.cfg.Discover)
	defer tick.Stop()
	for {
		dbs, err := a.databases(ctx, str)
		if err != nil && ctx.Err() == nil {
			log.Warn("databases of the stream cannot be listed, trying again", "err", err)
			if stream.Classify(err) == stream.Permanent {
				return err
			}
		}
		for _, db := range dbs {
			if !known[db] && d.takes(db) {
				known[db] = true
				running.Go(func() { a.runLane(ctx, d, db, str, p) })
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func (a *Archiver) databases(ctx context.Context, str *stream.Stream) ([]wire.DB, error) {
	if len(a.cfg.DBs) > 0 {
		return a.cfg.DBs, nil
	}
	return str.Databases(ctx)
}

func (a *Archiver) runLane(ctx context.Context, d Destination, db wire.DB, str *stream.Stream, p *progress) {
	l := newLane(&a.cfg, d, db, a.tokens, str, p)
	defer a.cfg.Metrics.watch(l)()
	key := progressKey(d.Name, db)
	a.mu.Lock()
	a.mu.lanes[key] = l
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.mu.lanes, key)
	}()
	if err := l.run(ctx); err != nil && ctx.Err() == nil {
		l.log.Error("archiving stopped", "err", err)
		l.failed(err)
	}
}

// trim removes from the stream what every archive has.
func (a *Archiver) trim(ctx context.Context, str *stream.Stream, p *progress) {
	t := &trimmer{str: str, progress: p, wanted: a.cfg.Destinations, after: a.cfg.TrimAfter, log: a.cfg.Logger, metrics: a.cfg.Metrics, floors: map[wire.DB][]floorAt{}}
	tick := time.NewTicker(t.every())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			t.step(ctx, now)
		}
	}
}

func (a *Archiver) setStandby(d Destination, why string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if why == "" {
		delete(a.mu.standby, d.Name)
		return
	}
	if a.mu.standby[d.Name] == "" {
		a.cfg.Logger.Info("standing by", "dest", d.Name, "why", why)
	}
	a.mu.standby[d.Name] = why
}

// Status of all lanes, by database and destination; a destination that another
// process writes is one entry without a database.
func (a *Archiver) Status() []Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := []Status{}
	for _, l := range a.mu.lanes {
		all = append(all, l.status())
	}
	for _, d := range a.cfg.Destinations {
		if why := a.mu.standby[d.Name]; why != "" {
			all = append(all, Status{Destination: d.Name, URL: d.Archive.String(), State: StateStandby, Error: why})
		}
	}
	slices.SortFunc(all, func(x, y Status) int {
		return strings.Compare(string(x.DB)+"\x00"+x.Destination, string(y.DB)+"\x00"+y.Destination)
	})
	return all
}

// errNotOpen is why an archiver is not ready before it has a stream.
var errNotOpen = errors.New("the stream is not open yet")

// Ready returns nil when the stream is open and every lane follows the stream and is less than maxLag
// behind (0: lag does not count); a standby is ready.
func (a *Archiver) Ready(maxLag time.Duration) error {
	a.mu.Lock()
	opened := a.mu.opened
	a.mu.Unlock()
	if !opened {
		return errNotOpen
	}
	var errs []error
	for _, s := range a.Status() {
		name := fmt.Sprintf("%s to %s", s.DB, s.Destination)
		switch {
		case s.State == StateStandby:
		case s.Alarm != "":
			errs = append(errs, fmt.Errorf("%s: %s", name, s.Alarm))
		case s.Error != "":
			errs = append(errs, fmt.Errorf("%s: %s: %s", name, s.State, s.Error))
		case s.State != StateArchiving:
			errs = append(errs, fmt.Errorf("%s: %s", name, s.State))
		case maxLag > 0 && s.Lag > maxLag.Seconds():
			errs = append(errs, fmt.Errorf("%s: lag %.1fs is over %v", name, s.Lag, maxLag))
		}
	}
	return errors.Join(errs...)
}
