package embedded_test

import (
	"context"
	"os/signal"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/embedded"
)

// A limit on the size of files stands for a full disk: a write fails, later
// ones would succeed again. Not parallel: the limit is the process's.
func TestComesBackAfterFailedWrite(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	s := start(t, embedded.Config{Dir: t.TempDir()})
	_, js := connect(t, s)
	st, err := addStream(t.Context(), js)
	if err != nil {
		t.Fatal(err)
	}

	lift := limitFiles(t, 3<<20)
	var acked uint64
	for range 8 {
		limit := time.Second
		if acked == 0 {
			limit = time.Minute // what is too slow later passes for what failed
		}
		if err := publish(t.Context(), js, 1<<20, limit); err != nil {
			break
		}
		acked++
	}
	if acked == 0 || acked == 8 {
		t.Fatalf("%d MB went into files of 3 MB", acked)
	}
	lift()

	waitFor(t, func() bool { return publish(t.Context(), js, 1<<10, time.Second) == nil })
	for n := uint64(1); n <= acked; n++ {
		if msg, err := st.GetMsg(t.Context(), n); err != nil || len(msg.Data) != 1<<20 {
			t.Fatalf("acknowledged message %d of %d: %v", n, acked, err)
		}
	}
}

func publish(ctx context.Context, js jetstream.JetStream, size int, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_, err := js.Publish(ctx, "t.1", make([]byte, size))
	return err
}

func limitFiles(t *testing.T, size uint64) (lift func()) {
	t.Helper()
	var old syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &old); err != nil {
		t.Fatal(err)
	}
	limited := syscall.Rlimit{Cur: size, Max: old.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limited); err != nil {
		t.Fatal(err)
	}
	lift = func() { _ = syscall.Setrlimit(syscall.RLIMIT_FSIZE, &old) }
	t.Cleanup(lift)
	return lift
}
