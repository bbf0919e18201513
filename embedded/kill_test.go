package embedded_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/embedded"
)

// childEnv makes this test binary a process that publishes until it is killed.
const childEnv = "EMBEDDED_TEST_PUBLISH"

// childPublish prints the number of each message once it is acknowledged.
func childPublish(dir string) int {
	if err := publishForever(context.Background(), dir); err != nil {
		fmt.Println("error:", err)
	}
	return 1
}

func publishForever(ctx context.Context, dir string) error {
	s, err := embedded.New(embedded.Config{Dir: dir})
	if err != nil {
		return err
	}
	if err := s.Start(ctx); err != nil {
		return err
	}
	nc, err := s.Connect()
	if err != nil {
		return err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	st, err := addStream(ctx, js)
	if err != nil {
		return err
	}
	for n := st.CachedInfo().State.LastSeq + 1; ; n++ {
		if _, err := js.Publish(ctx, "t.1", body(n)); err != nil {
			return err
		}
		fmt.Println(n)
	}
}

func body(n uint64) []byte { return []byte(strings.Repeat(strconv.FormatUint(n, 10)+" ", 200)) }

func TestKilledServerKeepsAcknowledgedMessages(t *testing.T) {
	dir := t.TempDir()
	var acked uint64
	for range 3 {
		acked = publishUntilKilled(t, dir, acked+200)
	}
	_, js := connect(t, start(t, embedded.Config{Dir: dir}))
	st, err := js.Stream(t.Context(), "T")
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); n <= acked; n++ {
		msg, err := st.GetMsg(t.Context(), n)
		if err != nil || string(msg.Data) != string(body(n)) {
			t.Fatalf("acknowledged message %d of %d: %v", n, acked, err)
		}
	}
	t.Logf("%d acknowledged, none lost", acked)
}

// publishUntilKilled kills a publishing child once message n is acknowledged,
// and returns the last acknowledgement it printed.
func publishUntilKilled(t *testing.T, dir string, n uint64) uint64 {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var last uint64
	for lines := bufio.NewScanner(out); lines.Scan(); {
		got, err := strconv.ParseUint(lines.Text(), 10, 64)
		if err != nil {
			break // an error's text, or a line cut short
		}
		if last = got; last == n {
			refused(t, dir, cmd.Process.Pid)
			_ = cmd.Process.Kill() // SIGKILL; what it printed until then is read on
		}
	}
	_ = cmd.Wait()
	if last < n {
		t.Fatalf("the child stopped at message %d of %d", last, n)
	}
	return last
}

// refused checks that a living process keeps the directory to itself.
func refused(t *testing.T, dir string, pid int) {
	t.Helper()
	s, err := embedded.New(embedded.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Start(t.Context())
	if err == nil {
		_ = s.Shutdown()
	}
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%s: directory in use by process %d", filepath.Clean(dir), pid)) {
		t.Errorf("error %v, want the directory and process %d named", err, pid)
	}
}
