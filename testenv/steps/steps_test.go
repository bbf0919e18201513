package steps_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/steps"
)

func TestMain(m *testing.M) {
	child.Dispatch(child.Jobs{"work": work})
	goleak.VerifyTestMain(m)
}

type spec struct{ Addr, Dir string }

// work makes each kind of step once.
func work(_ context.Context, raw json.RawMessage, out *child.Output) error {
	var s spec
	if err := json.Unmarshal(raw, &s); err != nil {
		return err
	}
	if err := steps.Offer(s.Addr); err != nil {
		return err
	}
	old, name := filepath.Join(s.Dir, "old"), filepath.Join(s.Dir, "new")
	f, err := os.Create(old)
	if err != nil {
		return err
	}
	defer f.Close()
	_, one := f.WriteString("first part")
	_, two := f.WriteAt([]byte("second part"), 10)
	return errors.Join(one, two, f.Sync(), f.Truncate(15), os.Rename(old, name), os.Remove(name), out.Send("done"))
}

// TestStopsBeforeEachStep stops a process before each of its steps and looks at
// what it has done.
func TestStopsBeforeEachStep(t *testing.T) {
	t.Parallel()
	seconds := func(s steps.Step) bool { return bytes.HasPrefix(s.Data, []byte("second")) && s.Offset == 10 }
	cases := map[string]struct {
		call string
		also func(steps.Step) bool
		file string // that there is
		want string // in it
	}{
		"create":       {call: steps.Create},
		"write":        {call: steps.Write, file: "old"},
		"second write": {call: steps.Write, also: seconds, file: "old", want: "first part"},
		"sync":         {call: steps.Sync, file: "old", want: "first partsecond part"},
		"truncate":     {call: steps.Truncate, file: "old", want: "first partsecond part"},
		"rename":       {call: steps.Rename, file: "old", want: "first partsecon"},
		"remove":       {call: steps.Remove, file: "new", want: "first partsecon"},
		"nothing":      {call: "none"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			w, err := steps.New()
			if err != nil {
				t.Skip(err)
			}
			defer w.Close()
			hit := w.Stop(func(s steps.Step) bool {
				return s.Call == c.call && strings.HasPrefix(s.Path, dir) && (c.also == nil || c.also(s))
			})
			p, err := child.Start("work", spec{w.Addr(), dir}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Kill()
			select {
			case <-hit:
			case <-p.Done():
				if err := p.Err(); err != nil && strings.Contains(err.Error(), steps.ErrUnsupported.Error()) {
					t.Skip(err)
				} else if err != nil || c.call != "none" {
					t.Fatalf("it was not stopped: %v", err)
				}
			}
			expect(t, dir, c.file, c.want)
			p.Kill()
			expect(t, dir, c.file, c.want)
		})
	}
}

// expect wants one file in dir, or none when name is "".
func expect(t *testing.T, dir, name, want string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if name == "" {
		if len(entries) != 0 {
			t.Errorf("there is %s", entries[0].Name())
		}
		return
	}
	if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(got) != want || len(entries) != 1 {
		t.Errorf("%s holds %q, %v, want %q alone", name, got, err, want)
	}
}
