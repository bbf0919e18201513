package natsserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func connect(t *testing.T, url string, opts ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(url, append(opts, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.Timeout(time.Minute))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func ended(t *testing.T, stop func(context.Context) error) {
	t.Cleanup(func() {
		if err := stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func publish(t *testing.T, js jetstream.JetStream, n int) {
	t.Helper()
	for range n {
		id := jetstream.WithMsgID(nats.NewInbox()) // sent twice, it is stored once
		err := retry(soon(t), func(ctx context.Context) error {
			_, err := js.Publish(ctx, "x", []byte("y"), id)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func messages(t *testing.T, js jetstream.JetStream) (n uint64) {
	t.Helper()
	err := retry(soon(t), func(ctx context.Context) error {
		s, err := js.Stream(ctx, "S")
		if err == nil {
			n = s.CachedInfo().State.Msgs
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func createStream(t *testing.T, js jetstream.JetStream, replicas int) {
	t.Helper()
	err := retry(soon(t), func(ctx context.Context) error {
		_, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "S", Subjects: []string{"x"}, Replicas: replicas})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRestartKeepsPortAndStore(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(context.Context, Config) (*Server, error){"in process": Start, "child": StartProcess} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := start(t.Context(), Config{Name: "n1", Dir: t.TempDir(), SyncAlways: true})
			if err != nil {
				t.Fatal(err)
			}
			ended(t, s.Stop)
			_, js := connect(t, s.URL())
			createStream(t, js, 1)
			publish(t, js, 10)
			url := s.URL()
			if err := s.Restart(t.Context()); err != nil || s.URL() != url {
				t.Fatalf("%s, then %s: %v", url, s.URL(), err)
			}
			if n := messages(t, js); n != 10 {
				t.Fatalf("%d messages after the restart", n)
			}
		})
	}
}

func TestKilledServerKeepsWhatItAcknowledged(t *testing.T) {
	t.Parallel()
	s, err := StartProcess(t.Context(), Config{Name: "n1", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ended(t, s.Stop)
	nc, js := connect(t, s.URL())
	createStream(t, js, 1)
	publish(t, js, 100)
	if s.PID() == 0 || s.Kill() != nil || s.Running() {
		t.Fatal("not killed")
	}
	if err := retry(soon(t), func(context.Context) error {
		if nc.IsConnected() {
			return errors.New("still connected")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := messages(t, js); n != 100 {
		t.Fatalf("%d messages after the kill", n)
	}
}

func TestServerInThisProcessIsNotKillable(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Config{Name: "n1", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ended(t, s.Stop)
	if err := s.Kill(); !errors.Is(err, ErrNotKillable) || !s.Running() || s.Local() == nil {
		t.Fatalf("got %v", err)
	}
}

func TestWithoutJetStream(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Config{Name: "n1", NoJetStream: true})
	if err != nil {
		t.Fatal(err)
	}
	ended(t, s.Stop)
	_, js := connect(t, s.URL())
	if _, err := js.AccountInfo(t.Context()); err == nil {
		t.Fatal("there is JetStream")
	}
}

func TestUsersAndPermissions(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Config{Name: "n1", Dir: t.TempDir(), Users: []User{
		{Name: "admin", Password: "a"},
		{Name: "reader", Password: "r", Publish: []string{"$JS.API.STREAM.INFO.S"}, Subscribe: []string{"_INBOX.>"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	ended(t, s.Stop)
	if nc, err := nats.Connect(s.URL()); err == nil {
		nc.Close()
		t.Fatal("connected without a user")
	}
	_, admin := connect(t, s.URL(), nats.UserInfo("admin", "a"))
	createStream(t, admin, 1)
	publish(t, admin, 1)
	denied := make(chan error, 1)
	nc, reader := connect(t, s.URL(), nats.UserInfo("reader", "r"),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { denied <- err }))
	if n := messages(t, reader); n != 1 {
		t.Fatalf("%d messages", n)
	}
	if err := nc.Publish("x", nil); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-denied:
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Fatal(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("no permission violation")
	}
}

func TestPortInUseIsAnError(t *testing.T) {
	t.Parallel()
	s, err := Start(t.Context(), Config{Name: "n1", Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	ended(t, s.Stop)
	if other, err := StartProcess(t.Context(), Config{Name: "n2", Dir: t.TempDir(), Port: s.Config().Port}); err == nil {
		_ = other.Stop(t.Context())
		t.Fatal("two servers on one port")
	} else if !strings.Contains(err.Error(), "in use") {
		t.Fatalf("the error hides why: %v", err)
	}
}

func TestUnusableStoreIsAnError(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := Start(t.Context(), Config{Name: "n1", Dir: file}); err == nil {
		_ = s.Stop(t.Context())
		t.Fatal("a file was taken for a store")
	}
}

func TestClusterSurvivesItsLeader(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		start func(context.Context, string, Config) (*Cluster, error)
		lose  func(*Cluster, context.Context, string) (*Server, error)
	}{
		"stopped": {StartCluster, (*Cluster).StopLeader},
		"killed":  {StartClusterProcesses, (*Cluster).KillLeader},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl, err := c.start(soon(t), t.TempDir(), Config{})
			if err != nil {
				t.Fatal(err)
			}
			ended(t, cl.Stop)
			_, js := connect(t, cl.URL())
			createStream(t, js, 3)
			publish(t, js, 20)
			lost, err := c.lose(cl, soon(t), "S")
			if err != nil || lost.Running() {
				t.Fatal(err)
			}
			began := time.Now()
			publish(t, js, 1)
			t.Logf("publish gap %s", time.Since(began).Round(time.Millisecond))
			next, err := cl.Leader(soon(t), "S")
			if err != nil || next == lost {
				t.Fatalf("the leader is still the lost node: %v", err)
			}
			if err := lost.Restart(soon(t)); err != nil {
				t.Fatal(err)
			}
			if err := cl.WaitCurrent(soon(t), "S"); err != nil {
				t.Fatal(err)
			}
			if n := messages(t, js); n < 21 {
				t.Fatal(fmt.Sprint(n, " messages"))
			}
		})
	}
}

// soon is a context for what should take a moment, or the election of a leader.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}
