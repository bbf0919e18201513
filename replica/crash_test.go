package replica

import (
	"database/sql"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"testing"
)

var crashPoints = []string{
	"bootstrap written", "bootstrap renamed",
	"page added", "position journaled", "frames written", "header written", halfTable, "checksums updated",
	"journal rewritten", "restart journaled", "wal restarted", "wal truncated",
}

// A subscriber killed at any step resumes at the position of what its readers
// see, without a new base, and ends equal to the primary.
func TestCrashAtEveryStep(t *testing.T) {
	for seed := range uint64(crashSeeds) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := seeded(t, seed)
			pageSize, length, bulk, soft := []uint32{4096, 1024, 16384}[seed%3], 160, 400, int64(96<<10)
			brief := seed >= 3 // each step once
			if brief {
				pageSize, length, bulk, soft = []uint32{1024, 512, 2048}[seed%3], 110, 60, 8<<10
			}
			dir, path := t.TempDir(), replicaPath(t)
			p := newPrimary(t, pageSize)
			p.bulk = bulk
			files := writeChain(t, dir, rnd, p, length)
			killed := map[string]int{}
			var reader *sql.Conn
			for round := 0; ; round++ {
				label := crashPoints[rnd.IntN(len(crashPoints))]
				if round < len(crashPoints) {
					label = crashPoints[round]
				}
				if brief && round >= len(crashPoints) {
					label = "" // to the end
				}
				o := order{Path: path, Chain: dir, Label: label, Nth: 1 + rnd.IntN(4), Soft: soft}
				switch label {
				case "bootstrap written", "bootstrap renamed", "wal truncated", "journal rewritten":
					o.Nth = 1
				case "page added":
					o.Nth = 1 + rnd.IntN(200)
				}
				if brief {
					o.Nth = 1 + o.Nth/8
				}
				err := childCommand(t, "apply", o).Run()
				if err == nil {
					break
				}
				if !wasKilled(err) {
					t.Fatalf("round %d, %s: %v", round, label, err)
				}
				killed[label]++
				resumes(t, path, o, files, label)
				if reader != nil {
					closeForeign(t, reader)
					reader = nil
				}
				if killed["bootstrap renamed"] > 0 && rnd.IntN(2) == 0 {
					reader = foreign(t, path) // keeps the wal-index alive over the next kill
					if err := reader.QueryRowContext(t.Context(), "SELECT 1 FROM head").Scan(new(int)); err != nil {
						t.Fatal(err)
					}
				}
			}
			end := files[len(files)-1]
			r := open(t, crashConfig(path, 0))
			if r.Position().Pos != end.pos {
				t.Fatalf("ended at %v, want %v", r.Position(), end.pos)
			}
			check(t, path, end)
			t.Logf("killed at: %v", killed)
			for _, label := range crashPoints {
				if killed[label] == 0 {
					t.Errorf("never killed at %q", label)
				}
			}
		})
	}
}

func wasKilled(err error) bool {
	ee, ok := errors.AsType[*exec.ExitError](err)
	return ok && ee.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
}

// resumes opens the replica after a kill and verifies that it knows the
// position of its content.
func resumes(t *testing.T, path string, o order, files []file, label string) {
	t.Helper()
	r, err := Open(t.Context(), crashConfig(path, o.Soft))
	if err != nil {
		t.Fatalf("open after %q: %v", label, err)
	}
	defer r.Close()
	if lost := r.Lost(); lost != nil {
		t.Fatalf("lost after %q: %v", label, lost)
	}
	pos := r.Position()
	if pos.IsZero() {
		if label != "bootstrap written" {
			t.Fatalf("no position after %q", label)
		}
		return
	}
	t.Logf("after %q at %s: found by %s", label, pos.TXID, r.Status().FoundBy)
	if how := r.Status().FoundBy; how == foundByContent && label != "bootstrap renamed" {
		t.Errorf("after %q the whole database was read", label)
	}
	f := files[pos.TXID-1]
	if f.pos != pos.Pos || pos.Seq != uint64(pos.TXID) {
		t.Fatalf("position %v after %q, want %v", pos, label, f.pos)
	}
	check(t, path, f)
}
