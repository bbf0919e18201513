package replica

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// order is what a child process is told on its command line's environment.
type order struct {
	Path  string
	Chain string // directory of LTX files, named so that they sort
	Label string // die at this crash point
	Nth   int    // when it is reached for the nth time
	Soft  int64
	For   time.Duration
}

func runChild(role string) int {
	var o order
	if err := json.Unmarshal([]byte(os.Getenv("REPLICA_TEST_ORDER")), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	run := map[string]func(order) error{"apply": childApply, "read": childRead}[role]
	if err := run(o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func childCommand(t testing.TB, role string, o order) *exec.Cmd {
	t.Helper()
	b, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "REPLICA_TEST_ROLE="+role, "REPLICA_TEST_ORDER="+string(b))
	cmd.Stderr = os.Stderr
	return cmd
}

// childApply applies the rest of the chain and dies at the label.
func childApply(o order) error {
	ctx := context.Background()
	var r *Replica
	n := 0
	cfg := crashConfig(o.Path, o.Soft)
	cfg.crash = func(label string) {
		if label != o.Label && !(o.Label == halfTable && label == "header written") {
			return
		}
		if n++; n < o.Nth {
			return
		}
		if o.Label == halfTable {
			tearTable(r)
		}
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
	r, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	names, err := chainAfter(o.Chain, r)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := applyNamed(ctx, r, name); err != nil {
			return fmt.Errorf("apply %s: %w", name, err)
		}
	}
	return r.Close()
}

const halfTable = "checksums half updated"

func crashConfig(path string, soft int64) Config {
	return Config{Path: path, SoftWALLimit: soft, journalLimit: 20 * recordSize,
		Logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
}

// tearTable leaves the page checksums as a crash in the middle of Update would:
// marked, with half of the entries of the commit.
func tearTable(r *Replica) {
	f, err := os.OpenFile(filepath.Join(r.cfg.StateDir, sumsName), os.O_RDWR, 0)
	if err != nil {
		panic(err)
	}
	c := &r.apply.changes
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], uint64(c.header.MaxTXID))
	f.WriteAt(b[:], 32)
	for _, p := range c.pages[:len(c.pages)/2] {
		if p.Pgno <= r.apply.table.Count() {
			binary.NativeEndian.PutUint64(b[:], uint64(p.Sum))
			f.WriteAt(b[:], 4096+8*int64(p.Pgno-1))
		}
	}
}

// chainAfter lists the files of the chain that r needs.
func chainAfter(dir string, r *Replica) ([]string, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.ltx"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names[r.Position().TXID:], nil
}

func applyNamed(ctx context.Context, r *Replica, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	return r.Apply(ctx, io.NewSectionReader(f, 0, fi.Size()), ApplyInfo{Seq: at(uint64(r.Position().TXID) + 1)})
}

// writeChain writes a chain of n random files.
func writeChain(t testing.TB, dir string, rnd *rand.Rand, p *primary, n int) []file {
	t.Helper()
	files := []file{p.bank()}
	for len(files) < n {
		files = append(files, p.churn(rnd))
	}
	for i, f := range files {
		mustWrite(t, filepath.Join(dir, fmt.Sprintf("%06d.ltx", i+1)), f.data)
	}
	return files
}
