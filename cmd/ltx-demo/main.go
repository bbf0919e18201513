package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ltxstream/ltxstream/embedded"
	"github.com/ltxstream/ltxstream/publisher"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/foreign"
	"github.com/ltxstream/ltxstream/testenv/oracle"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"
)

func main() {
	jobs := child.Jobs{}
	for _, more := range []child.Jobs{app.Jobs(), foreign.Jobs()} {
		for name, job := range more {
			jobs[name] = job
		}
	}
	child.Dispatch(jobs)
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "ltx-demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) (err error) {
	flags := flag.NewFlagSet("ltx-demo", flag.ContinueOnError)
	span := flags.Duration("for", 15*time.Second, "how long")
	rate := flags.Float64("rate", 500, "transfers per second; 0: as fast as it can")
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "ltx-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	d := &demo{dir: dir, primary: filepath.Join(dir, "app.db"), replica: filepath.Join(dir, "replica.db"), span: *span, rate: *rate, out: out}
	return d.run(ctx)
}

type demo struct {
	dir, primary, replica string
	span                  time.Duration
	rate                  float64
	out                   io.Writer

	pub *publisher.Publisher
	sub *subscriber.Subscriber
}

func (d *demo) run(ctx context.Context) (err error) {
	// The application makes its database; nobody else has touched it yet.
	if _, err := app.Run(ctx, app.Config{Path: d.primary, DB: sqlconn.WAL(), Seed: 1, Limit: 1}); err != nil {
		return err
	}
	nc, stop, err := d.serve(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := d.roles(nc); err != nil {
		return err
	}
	roles, cancel := context.WithCancel(ctx)
	defer cancel()
	g, roles := errgroup.WithContext(roles)
	g.Go(func() error { return d.pub.Run(roles) })
	g.Go(func() error { return d.sub.Run(roles) })
	err = d.watch(roles)
	if err == nil && ctx.Err() == nil {
		err = d.compare(ctx)
	}
	cancel()
	return errors.Join(err, g.Wait())
}

// serve starts nats-server in this process.
func (d *demo) serve(ctx context.Context) (*nats.Conn, func() error, error) {
	srv, err := embedded.New(embedded.Config{Dir: filepath.Join(d.dir, "nats"), Listen: "127.0.0.1:0", Logger: quiet()})
	if err != nil {
		return nil, nil, err
	}
	if err := srv.Start(ctx); err != nil {
		return nil, nil, err
	}
	nc, err := nats.Connect(srv.ClientURL(), nats.ReconnectBufSize(-1))
	if err != nil {
		return nil, nil, errors.Join(err, srv.Shutdown())
	}
	fmt.Fprintf(d.out, "nats-server in this process on %s, synced before each acknowledgement\n", srv.ClientURL())
	return nc, func() error { nc.Close(); return srv.Shutdown() }, nil
}

func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

func (d *demo) roles(nc *nats.Conn) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	if d.pub, err = publisher.New(publisher.Config{JS: js, DB: "app", Path: d.primary, Logger: quiet()}); err != nil {
		return err
	}
	d.sub, err = subscriber.New(subscriber.Config{JS: js, DB: "app", Path: d.replica, Logger: quiet()})
	return err
}

// watch runs the application and a reader of the replica, and shows them.
func (d *demo) watch(ctx context.Context) error {
	pos, err := d.pub.Sync(ctx)
	if err != nil {
		return err
	}
	if _, err := d.sub.WaitFor(ctx, pos.TXID); err != nil {
		return err
	}
	reader, err := foreign.Start(foreign.Config{Action: foreign.Probe, Path: d.replica, Interval: 100 * time.Microsecond, DB: sqlconn.Options{Mode: "ro"}})
	if err != nil {
		return err
	}
	defer reader.Kill()
	writer, err := app.StartTraced(app.Config{Path: d.primary, DB: sqlconn.WAL(), Seed: 2, Rate: d.rate, Duration: d.span})
	if err != nil {
		return err
	}
	defer writer.Kill()
	fmt.Fprintf(d.out, "application (pid %d) writes bank transfers to %s\nreader (pid %d) reads %s\n\n", writer.PID(), d.primary, reader.PID(), d.replica)
	screen := newScreen(d.out)
	for tick := time.NewTicker(500 * time.Millisecond); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-writer.Done():
			tick.Stop()
			_, err := writer.Result(ctx)
			screen.show(d.picture(writer, reader))
			return err
		case <-tick.C:
			screen.show(d.picture(writer, reader))
		}
	}
}

// compare waits for the replica and compares both files by content, by rolling
// checksum and by SQLite's own integrity check.
func (d *demo) compare(ctx context.Context) error {
	pos, err := d.pub.Sync(ctx)
	if err != nil {
		return err
	}
	at, err := d.sub.WaitFor(ctx, pos.TXID)
	if err != nil {
		return err
	}
	if err := oracle.Diff(ctx, d.primary, d.replica); err != nil {
		return fmt.Errorf("primary and replica differ: %w", err)
	}
	fmt.Fprintf(d.out, "\ncompared: primary and replica are equal at %s: rows, pages and integrity_check\n", at)
	return nil
}
