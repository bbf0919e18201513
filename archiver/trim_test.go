package archiver

import (
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
	"github.com/ltxstream/ltxstream/wire"
)

// recreate deletes the stream and begins another one with the next transaction,
// as its publisher would: the history is the same, the sequences begin at 1.
func (s *source) recreate(t *testing.T) *stream.Stream {
	t.Helper()
	if err := s.js.DeleteStream(t.Context(), wire.DefaultStream); err != nil {
		t.Fatal(err)
	}
	str, err := stream.Ensure(t.Context(), s.js, stream.Config{})
	if err != nil {
		t.Fatal(err)
	}
	s.LastSeq, s.Base = 0, 0
	s.Claim(t, s.js)
	s.publishFull(t)
	return str
}

// TestTrimAfterRecreation: what a destination that is away recorded of the stream
// before says nothing of this one, nor does what was to be trimmed there.
func TestTrimAfterRecreation(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	src := newSource(t, js, "app", 41)
	good, bad := newTarget(), newTarget()
	cfg := quickly(t, js, good, bad)
	cfg.TrimAfter = 200 * time.Millisecond
	start(t, cfg)
	src.publish(t, 40) // sequences that the next stream does not reach
	reached(t, good, "app", 40)
	reached(t, bad, "app", 40)
	bad.down.Store(true)
	str := src.recreate(t) // TXID 41
	for range 4 {
		reached(t, good, "app", src.published)
		src.publish(t, 1)
	}
	reached(t, good, "app", 45)
	time.Sleep(3 * cfg.TrimAfter) // time to trim what must not be trimmed
	m, err := str.FirstData(t.Context(), "app")
	if err != nil || m == nil || m.Meta.Min != 41 {
		t.Fatalf("the stream begins at %+v, the lost destination has 40: %v", m, err)
	}
	bad.down.Store(false)
	reached(t, bad, "app", 45)
	for txid := ltx.TXID(46); txid <= 48; txid++ {
		src.publish(t, 1)
		reached(t, bad, "app", txid)
		reached(t, good, "app", txid)
	}
	streamtest.Eventually(t, "trimmed again", func() bool {
		m, err := str.FirstData(t.Context(), "app")
		return err == nil && m != nil && m.Meta.Min >= 46
	})
	for _, s := range []*target{good, bad} {
		for _, txid := range points(t, s, "app") {
			if txid >= 40 {
				src.check(t, s, txid)
			}
		}
	}
}

// TestFloor: every record counts, and one of no stream or of another one holds
// everything.
func TestFloor(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, c := range map[string]struct {
		other record
		want  uint64
	}{
		"further":              {record{FirstSeq: 9, Created: now}, 5},
		"behind":               {record{FirstSeq: 3, Created: now}, 3},
		"of the stream before": {record{FirstSeq: 9, Created: now.Add(-time.Hour)}, 0},
		"without a stream":     {record{FirstSeq: 9}, 0}, // as it was written once
		"not read":             {record{}, 0},
		"of a stream just met": {record{Created: now}, 0},
	} {
		p := &progress{}
		p.mu.records = map[string]record{
			"d1.app": {FirstSeq: 5, Created: now}, "d2.app": c.other, "d2.b": {FirstSeq: 1},
		}
		if got := p.floor("app", []Destination{{Name: "d1"}}, now); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// TestNewestIsNeverTrimmed: whatever sequence is given.
func TestNewestIsNeverTrimmed(t *testing.T) {
	t.Parallel()
	js := streamtest.Connect(t, newServer(t))
	src := newSource(t, js, "app", 42)
	src.part = 100 // a file is many messages
	src.publish(t, 4)
	str, err := stream.Open(t.Context(), js, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := (&trimmer{str: str}).remove(t.Context(), "app", 1<<40); err != nil {
		t.Fatal(err)
	}
	if m, err := str.FirstData(t.Context(), "app"); err != nil || m == nil || m.Meta.Min != 4 || m.Meta.Part != 1 {
		t.Errorf("the stream begins at %+v, %v", m, err)
	}
}
