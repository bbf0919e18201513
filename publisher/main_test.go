package publisher

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"
)

func TestMain(m *testing.M) {
	testenv.Main(m, child.Jobs{"publisher": publisherJob})
}

// publisherSpec says what a publisher in a child process does.
type publisherSpec struct {
	URL, Path      string
	DB             wire.DB
	PerTransaction bool
	SoftWALLimit   int64
	ForceReseed    bool
	After          ltx.TXID
	Crash          string // label to be killed at
	Nth            int    // … the n-th time
}

// killer returns the hook that kills the process at the wanted step.
func (s publisherSpec) killer() func(string) {
	n := 0
	return func(label string) {
		if label != s.Crash {
			return
		}
		if n++; n == s.Nth {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
}

// killed waits until a child was killed; another end fails the test.
func killed(t *testing.T, p *child.Process) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := p.Wait(ctx)
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		t.Fatalf("not killed: %v", err)
	}
	if s, ok := exit.Sys().(syscall.WaitStatus); !ok || s.Signal() != syscall.SIGKILL {
		t.Fatalf("not killed: %v", err)
	}
}

// publisherJob publishes until it is stopped or killed.
func publisherJob(ctx context.Context, raw json.RawMessage, out *child.Output) error {
	var spec publisherSpec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return err
	}
	nc, err := nats.Connect(spec.URL, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectBufSize(-1), nats.RetryOnFailedConnect(true))
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	p, err := New(Config{JS: js, DB: spec.DB, Path: spec.Path, PerTransaction: spec.PerTransaction, ForceReseed: spec.ForceReseed, SoftWALLimit: spec.SoftWALLimit, SoleOwner: true, crash: spec.killer(),
		After: func(context.Context) (ltx.TXID, error) { return spec.After, nil }})
	if err != nil {
		return err
	}
	return p.Run(ctx)
}
