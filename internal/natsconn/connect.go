package natsconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/synadia-io/orbit.go/natscontext"
)

const (
	dialTimeout  = 2 * time.Second
	checkTimeout = 3 * time.Second
	apiTimeout   = 5 * time.Second
	retryEvery   = 100 * time.Millisecond
)

// Options are those every connection of ours has: no buffer while
// disconnected, reconnecting for ever, asynchronous errors logged. name shows
// in the server's connection list; nil logger means slog.Default().
func Options(name string, logger *slog.Logger) []nats.Option {
	if logger == nil {
		logger = slog.Default()
	}
	return []nats.Option{
		nats.Name(name),
		nats.ReconnectBufSize(-1),
		nats.MaxReconnects(-1),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, 500*time.Millisecond),
		nats.IgnoreAuthErrorAbort(),
		nats.PingInterval(10 * time.Second),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(dialTimeout),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if !nc.IsClosed() {
				logger.Warn("nats connection lost", "err", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			logger.Info("nats connection is back", "url", nc.ConnectedUrlRedacted())
		}),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			logger.Error("nats reports an error", "subject", subjectOf(sub), "err", err)
		}),
	}
}

func subjectOf(sub *nats.Subscription) string {
	if sub == nil {
		return ""
	}
	return sub.Subject
}

// Connect connects and checks that JetStream answers. The caller closes the
// connection. While nothing answers it tries for ConnectWait; a refusal is
// reported at once. Errors are an [*Error].
//
// A user who may not ask for the account's JetStream information is let
// through: whether JetStream is there then shows with the first use.
func (f Flags) Connect(ctx context.Context, name string, logger *slog.Logger) (*nats.Conn, jetstream.JetStream, error) {
	if err := f.validate(); err != nil {
		return nil, nil, &Error{Kind: BadFlags, Err: err}
	}
	own, err := f.options()
	if err != nil {
		return nil, nil, &Error{Kind: BadFlags, Err: err}
	}
	nc, settings, err := f.dialUntil(ctx, append(Options(name, logger), own...))
	if err != nil {
		return nil, nil, err
	}
	js, err := f.jetStream(ctx, nc, settings)
	if err != nil {
		nc.Close()
		return nil, nil, err
	}
	return nc, js, nil
}

// Attach is Connect over a connection that is there already, an embedded
// server's for example.
func Attach(ctx context.Context, nc *nats.Conn) (jetstream.JetStream, error) {
	return Flags{}.jetStream(ctx, nc, natscontext.Settings{})
}

func (f Flags) dialUntil(ctx context.Context, opts []nats.Option) (*nats.Conn, natscontext.Settings, error) {
	deadline := time.Now().Add(f.ConnectWait)
	for {
		nc, settings, err := f.dial(opts)
		if err == nil || err.Kind != Absent || !time.Now().Before(deadline) {
			return nc, settings, asError(err)
		}
		select {
		case <-ctx.Done():
			return nil, settings, fmt.Errorf("%w, while %w", context.Cause(ctx), err.Err) // the exit code is the interrupt's
		case <-time.After(retryEvery):
		}
	}
}

// asError keeps a nil *Error from becoming a non-nil error.
func asError(e *Error) error {
	if e == nil {
		return nil
	}
	return e
}

func (f Flags) dial(opts []nats.Option) (*nats.Conn, natscontext.Settings, *Error) {
	if f.Context != "" {
		return f.dialContext(opts)
	}
	d := &dialer{}
	nc, err := nats.Connect(f.url(), append(opts, nats.SetCustomDialer(d))...)
	if err != nil {
		return nil, natscontext.Settings{}, connectError(f.url(), err, d.last())
	}
	return nc, natscontext.Settings{}, nil
}

// dialContext connects by a context of the nats tool; our own flags win.
func (f Flags) dialContext(opts []nats.Option) (*nats.Conn, natscontext.Settings, *Error) {
	where := "context " + f.Context
	if f.Server != "" {
		where = f.Server
		opts = append(opts, useServers(f.Server))
	}
	nc, settings, err := natscontext.Connect(f.Context, opts...)
	if err != nil {
		if strings.Contains(err.Error(), "context") {
			return nil, settings, &Error{Kind: BadFlags, Err: fmt.Errorf("read --context %q: %w", f.Context, err)}
		}
		return nil, settings, connectError(where, err, nil)
	}
	return nc, settings, nil
}

func useServers(servers string) nats.Option {
	return func(o *nats.Options) error {
		o.Servers = strings.Split(servers, ",")
		return nil
	}
}

// jetStream returns the JetStream context once JetStream answered.
func (f Flags) jetStream(ctx context.Context, nc *nats.Conn, settings natscontext.Settings) (jetstream.JetStream, error) {
	domain := f.JSDomain
	if domain == "" {
		domain = settings.JSDomain
	}
	js, err := newJetStream(nc, domain, settings.JSAPIPrefix)
	if err != nil {
		return nil, &Error{Kind: BadFlags, Err: err}
	}
	if err := checkJetStream(ctx, nc, js); err != nil {
		return nil, &Error{Kind: kindOf(err), URL: nc.ConnectedUrlRedacted(), Domain: domain, Err: err}
	}
	return js, nil
}

func newJetStream(nc *nats.Conn, domain, prefix string) (jetstream.JetStream, error) {
	opt := jetstream.WithDefaultTimeout(apiTimeout)
	switch {
	case domain != "":
		return jetstream.NewWithDomain(nc, domain, opt)
	case prefix != "":
		return jetstream.NewWithAPIPrefix(nc, prefix, opt)
	}
	return jetstream.New(nc, opt)
}

// checkJetStream asks for the account's information. A denial arrives only as
// an asynchronous error, so it is looked for while the question is open.
func checkJetStream(ctx context.Context, nc *nats.Conn, js jetstream.JetStream) error {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	var asking sync.WaitGroup
	defer asking.Wait()
	answer := make(chan error, 1)
	asking.Go(func() {
		_, err := js.AccountInfo(ctx)
		answer <- err
	})
	for {
		select {
		case err := <-answer:
			return err
		case <-time.After(10 * time.Millisecond):
			if last := nc.LastError(); errors.Is(last, nats.ErrPermissionViolation) {
				cancel()
				return unlessPublish(last)
			}
		}
	}
}

// unlessPublish excuses a denied question: a role can do without. A denied
// inbox is another matter, no answer of any kind would arrive.
func unlessPublish(denied error) error {
	if strings.Contains(denied.Error(), "Publish") {
		return nil
	}
	return denied
}

// dialer keeps the last failure: nats.go reports only that no server was there.
type dialer struct {
	mu  sync.Mutex
	err error
}

func (d *dialer) Dial(network, address string) (net.Conn, error) {
	c, err := net.DialTimeout(network, address, dialTimeout)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
	return c, err
}

func (d *dialer) last() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}
