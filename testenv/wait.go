package testenv

import (
	"net/url"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv/faults"
)

const pollEvery = 5 * time.Millisecond

// Until polls cond until it returns nil, and fails the test with its last error when that takes longer than limit.
func Until(t testing.TB, limit time.Duration, what string, cond func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := cond()
		if err == nil {
			return
		}
		if !time.Now().Before(deadline) {
			t.Fatalf("wait %s for %s: %v", limit, what, err)
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("wait for %s: the test ended: %v", what, err)
		}
	}
}

// Again asks up to five times, until ask returns nil: on a slow machine an answer may come too late. It reports the last error.
func Again(t testing.TB, ask func() error) {
	t.Helper()
	for left := 4; ; left-- {
		err := ask()
		if err == nil {
			return
		}
		if left == 0 {
			t.Error(err)
			return
		}
	}
}

// Proxy starts a TCP proxy to a server's URL or host:port, until the end of the test.
func Proxy(t testing.TB, target string) *faults.Proxy {
	t.Helper()
	if u, err := url.Parse(target); err == nil && u.Host != "" {
		target = u.Host
	}
	p, err := faults.New(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}
