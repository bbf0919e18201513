package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// fakeRunner fails at once, or runs until ctx ends.
type fakeRunner struct {
	fakeRole
	fail error
}

func (r fakeRunner) Run(ctx context.Context) error {
	if r.fail == nil {
		<-ctx.Done()
	}
	return r.fail
}

func TestRunAllGoesOnWithoutTheFailed(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	fenced := Exit(ExitFenced, errors.New("fenced"), "stop the other")
	all := Supervise(fakeRunner{fakeRole{name: "a"}, fenced}, fakeRunner{fakeRole: fakeRole{name: "b"}})
	done := make(chan error, 1)
	go func() { done <- RunAll(ctx, slog.New(slog.DiscardHandler), all) }()
	for deadline := time.Now().Add(time.Minute); all[0].Ready(0) == nil; <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the failed role stays ready")
		}
	}
	select {
	case err := <-done:
		t.Fatalf("ended with the first: %v", err)
	default:
	}
	if err := all[1].Ready(0); err != nil {
		t.Errorf("b: %v", err)
	}
	cancel()
	err := <-done
	if Code(err) != ExitFenced || err.Error() != "fenced" {
		t.Errorf("error %q, code %d", err, Code(err))
	}
	for _, role := range Roles(all) {
		if err := role.Ready(0); err == nil || !strings.Contains(err.Error(), "stopped") {
			t.Errorf("%s after the end: %v", role.Name(), err)
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{
		"0": 0, "4096": 4096, "64MB": 64 << 20, "64MiB": 64 << 20, "1.5g": 3 << 29, " 2 k ": 2 << 10, "7B": 7, "1TB": 1 << 40,
		"": -1, "MB": -1, "-1": -1, "1e9": -1, "0x10": -1, "5 apples": -1, "99999999TB": -1, "NaN": -1, "Inf": -1, "1.2.3": -1,
	} {
		var got Size
		err := got.UnmarshalText([]byte(text))
		if (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %d, %v; want %d", text, got, err, want)
		}
	}
	if s := Size(64 << 20).String(); s != "64MB" {
		t.Errorf("64 MB prints as %s", s)
	}
}

func FuzzSize(f *testing.F) {
	f.Add("1.5GiB")
	f.Fuzz(func(t *testing.T, text string) {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil && s < 0 {
			t.Errorf("%q is %d", text, s)
		}
	})
}

func TestPrint(t *testing.T) {
	var out strings.Builder
	if err := PrintTable(&out, []string{"db", "txid"}, [][]string{{"app", "1"}, {"a-longer-name", "22"}}); err != nil {
		t.Fatal(err)
	}
	want := "DB             TXID  \napp            1     \na-longer-name  22    \n"
	if out.String() != want {
		t.Errorf("table\n%q\nwant\n%q", out.String(), want)
	}
	out.Reset()
	if err := PrintJSON(&out, []int{1}); err != nil || !json.Valid([]byte(out.String())) {
		t.Errorf("%q, %v", out.String(), err)
	}
	if IsTerminal(&out) {
		t.Error("a string is a terminal")
	}
}
