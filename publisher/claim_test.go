package publisher

import (
	"errors"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
)

// TestFencedWithoutClaim: where the stream dropped the claim in force for its age,
// the data under it says who holds the database.
func TestFencedWithoutClaim(t *testing.T) {
	mine := wire.Claim{Epoch: 3, Writer: "me", Time: time.UnixMilli(1).UTC()}
	data := func(epoch uint64, writer string) *stream.Message {
		return &stream.Message{Meta: wire.Meta{DB: "app", Epoch: epoch, Writer: writer, Min: 9, Max: 9, Pre: ltx.ChecksumFlag | 1, Post: ltx.ChecksumFlag | 2}}
	}
	for _, c := range []struct {
		name   string
		claim  *wire.Claim
		head   stream.Head
		fenced bool
	}{
		{"nothing there", &mine, stream.Head{}, false},
		{"my own data", &mine, stream.Head{Data: data(3, "me")}, false},
		{"older data of another", &mine, stream.Head{Data: data(2, "other")}, false},
		{"newer data of another", &mine, stream.Head{Data: data(4, "other")}, true},
		{"newer data, and my claim in force", &mine, stream.Head{Claim: &mine, Data: data(4, "other")}, false},
		{"not claimed yet", nil, stream.Head{Data: data(4, "other")}, false},
	} {
		r := &runner{Publisher: &Publisher{cfg: Config{DB: "app", Path: "app.db"}}, claim: c.claim}
		err := r.fenced(c.head)
		if errors.Is(err, ErrFenced) != c.fenced || err != nil && !c.fenced {
			t.Errorf("%s: %v, fenced %t", c.name, err, c.fenced)
		}
	}
}

// TestEpochOutlivesTheStream: a publisher that is restarted, and finds nothing of
// the database in the stream, goes on counting.
func TestEpochOutlivesTheStream(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for n := range uint64(3) {
		p := start(t, w.config())
		p.sync()
		if got := p.Status().Epoch; got != n+1 {
			t.Fatalf("epoch %d, want %d", got, n+1)
		}
		p.stop()
		w.empty("purged")
	}
}

// TestOlderAttemptIsStored: a slow server may store a claim of ours after we read
// the head and made another.
func TestOlderAttemptIsStored(t *testing.T) {
	at := func(epoch uint64) *wire.Claim {
		return &wire.Claim{Epoch: epoch, Writer: "me", Time: time.UnixMilli(int64(epoch)).UTC()}
	}
	r := &runner{Publisher: &Publisher{cfg: Config{DB: "app", Path: "app.db"}}, claim: at(1), attempts: []*wire.Claim{at(2), at(3)}}
	if err := r.fenced(stream.Head{Claim: at(2)}); err != nil || !same(r.claim, at(2)) || r.attempts != nil {
		t.Fatalf("%v, claim %+v", err, r.claim)
	}
}
