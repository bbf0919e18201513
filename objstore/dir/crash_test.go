package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
)

const (
	envStep     = "DIR_TEST_DIE_AT"
	envRoot     = "DIR_TEST_ROOT"
	envIfAbsent = "DIR_TEST_IF_ABSENT"
)

// dieAt puts an object and kills its process at a step.
func dieAt(step string) {
	s, err := New(context.Background(), Config{Path: os.Getenv(envRoot), step: func(done string) {
		if done == step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}})
	if err == nil {
		_, err = s.Put(context.Background(), "a/x.ltx", strings.NewReader("after"), objstore.PutOptions{
			Timestamp: at.Add(time.Hour), Meta: map[string]string{"n": "after"}, IfAbsent: os.Getenv(envIfAbsent) != "",
		})
	}
	fmt.Println("not killed:", err)
	os.Exit(1)
}

// TestKilledAtEachStep: what is visible then is the old object or the new one,
// each whole with its own metadata, and the next Put works.
func TestKilledAtEachStep(t *testing.T) {
	steps := []string{"created", "written", "synced", "described", "visible", "lasting", "tidy"}
	for i, step := range steps {
		for _, replaces := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, replaces %t", step, replaces), func(t *testing.T) {
				t.Parallel()
				root := t.TempDir()
				s := open(t, Config{Path: root})
				want := ""
				if replaces {
					put(t, s, "before", at)
					want = "before"
				}
				child := exec.CommandContext(t.Context(), os.Args[0])
				child.Env = append(os.Environ(), envStep+"="+step, envRoot+"="+root)
				if !replaces {
					child.Env = append(child.Env, envIfAbsent+"=1")
				}
				out, err := child.CombinedOutput()
				if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("child: %v\n%s", err, out)
				}
				if i >= 4 {
					want = "after"
				}
				check(t, s, want)
				put(t, s, "at last", at.Add(2*time.Hour))
				check(t, s, "at last")
			})
		}
	}
}

func put(t *testing.T, s *Store, what string, at time.Time) {
	t.Helper()
	what = strings.ReplaceAll(what, " ", "-")
	if _, err := s.Put(t.Context(), "a/x.ltx", strings.NewReader(what), objstore.PutOptions{Timestamp: at, Meta: map[string]string{"n": what}}); err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, s *Store, want string) {
	t.Helper()
	want = strings.ReplaceAll(want, " ", "-")
	n := 0
	for info, err := range s.List(t.Context(), "", "") {
		if n++; err != nil || info.Key != "a/x.ltx" || info.Size != int64(len(want)) {
			t.Fatalf("listed %+v, %v", info, err)
		}
	}
	info, err := s.Stat(t.Context(), "a/x.ltx")
	if want == "" {
		if n != 0 || !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%d objects, %v: want none", n, err)
		}
		return
	}
	body, errGet := objstore.ReadAll(t.Context(), s, "a/x.ltx")
	if err := errors.Join(err, errGet); err != nil || n != 1 || string(body) != want || info.Meta["n"] != want {
		t.Fatalf("%d objects, %q, %+v, %v: want %q", n, body, info, err, want)
	}
}
