package natsobj

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/testenv"
)

// TestCluster: what one store did, others on other nodes see at once.
func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server")
	}
	c := testenv.Cluster(t)
	var stores []*Store
	for _, n := range c.Nodes() {
		js := testenv.JetStream(t, testenv.Connect(t, n.URL()))
		stores = append(stores, open(t, js, func(c *Config) { c.Create, c.Replicas = true, 3 }))
	}
	put(t, stores[0], "first.ltx", nil)
	remove(t, stores[0], "first.ltx")
	var want []string
	for i := range 24 {
		key := fmt.Sprintf("db/%03d.ltx", i)
		body := content((i % 4) * chunkSize / 2)
		put(t, stores[i%3], key, body)
		want = append(want, key)
		for _, s := range stores {
			if got := get(t, s, key, 0, -1); !bytes.Equal(got, body) {
				t.Fatalf("%s: other content", key)
			}
			if got := keys(t, s, "db/"); got != strings.Join(want, " ") {
				t.Fatalf("after put %d: listed %s", i, got)
			}
		}
		if i%5 == 4 {
			before := lastSeq(t, stores[0])
			remove(t, stores[(i+1)%3], want[0])
			want = want[1:]
			if lastSeq(t, stores[0]) == before {
				t.Fatal("nothing shows whether a replica has the delete")
			}
			for _, s := range stores {
				if got := keys(t, s, "db/"); got != strings.Join(want, " ") {
					t.Fatalf("after delete %d: listed %s", i, got)
				}
			}
		}
		if i == 12 {
			nameAll(t, stores[1])
		}
	}
	oneWinner(t, stores)
	t.Run("LeaderStops", func(t *testing.T) {
		s := stores[0]
		for i, n := range c.Nodes() { // one that does not lead
			if leader, err := c.Leader(t.Context(), s.stream); err != nil {
				t.Fatal(err)
			} else if leader != n {
				s = stores[i]
			}
		}
		retried := objstore.Retry(s, objstore.RetryConfig{Tries: 100, FirstPause: 50 * time.Millisecond, MaxPause: 200 * time.Millisecond})
		if _, err := c.StopLeader(t.Context(), s.stream); err != nil {
			t.Fatal(err)
		}
		put(t, retried, "db/after.ltx", content(5*chunkSize))
		if got := get(t, retried, "db/after.ltx", 0, -1); len(got) != 5*chunkSize {
			t.Errorf("%d bytes", len(got))
		}
		if got := keys(t, retried, "db/"); got != strings.Join(append(want, "db/after.ltx"), " ") {
			t.Errorf("listed %s", got)
		}
	})
}

func lastSeq(t *testing.T, s *Store) uint64 {
	t.Helper()
	i, err := s.info(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return i.State.LastSeq
}

// oneWinner lets all stores put one key at once.
func oneWinner(t *testing.T, stores []*Store) {
	for round := range 10 {
		key := fmt.Sprintf("race/%d.ltx", round)
		var wins atomic.Int64
		var g errgroup.Group
		for i := range 9 {
			g.Go(func() error {
				_, err := stores[i%3].Put(t.Context(), key, bytes.NewReader(content(i)), objstore.PutOptions{Timestamp: stamp, IfAbsent: true})
				if err == nil {
					wins.Add(1)
				} else if !errors.Is(err, fs.ErrExist) {
					return err
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil || wins.Load() != 1 {
			t.Fatalf("%d winners, %v", wins.Load(), err)
		}
	}
}

// TestReplicaBehind: a replica that has only what came before some message
// answers the direct gets. Nothing else shows how far one is behind.
func TestReplicaBehind(t *testing.T) {
	s, _ := archive(t, patience(3*time.Second))
	body := content(6 * chunkSize)
	put(t, s, "db/old.ltx", body)
	put(t, s, "db/twice.ltx", content(1))
	i, err := s.info(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "db/twice.ltx", content(2))
	put(t, s, "db/new.ltx", body)
	r := lagging(t, s, i.State.LastSeq)
	for _, key := range []string{"db/old.ltx", "db/new.ltx"} {
		if got := get(t, s, key, 0, -1); !bytes.Equal(got, body) {
			t.Errorf("%s: other content", key)
		}
		if got := get(t, s, key, chunkSize+5, 10); !bytes.Equal(got, body[chunkSize+5:chunkSize+15]) {
			t.Errorf("%s: other range", key)
		}
	}
	if r.asked == 0 {
		t.Fatal("the replica was not asked")
	}
	r.multi = 3 // then it has caught up
	for range 2 {
		var size int64
		for i, err := range s.List(t.Context(), "db/", "") {
			if err != nil {
				t.Fatal(err)
			}
			size += i.Size
		}
		if size != 2+2*int64(len(body)) {
			t.Errorf("listed %d bytes in all", size)
		}
	}
	if r.multi > 0 {
		t.Error("the listing did not wait for the replica")
	}
	r.drop = true
	for _, err = range s.List(t.Context(), "db/", "") {
	}
	if !transient(err) {
		t.Errorf("an answer without its beginning: %v", err)
	}
	r.drop, r.multi = false, 1<<30
	s.cfg.Timeout = 50 * time.Millisecond
	for _, err = range s.List(t.Context(), "db/", "") {
	}
	if !transient(err) {
		t.Errorf("a replica that never catches up: %v", err)
	}
}

// replica answers direct gets in the server's place.
type replica struct {
	s     *Store
	last  uint64 // its last sequence
	asked int
	multi int  // requests for several subjects that it answers from the past
	drop  bool // the first message of several does not arrive
}

func lagging(t *testing.T, s *Store, last uint64) *replica {
	t.Helper()
	stream, err := s.cfg.JS.Stream(t.Context(), s.stream)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.AllowDirect = false
	if _, err := s.cfg.JS.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	r := &replica{s: s, last: last}
	other := testenv.Connect(t, s.nc.ConnectedUrl())
	if _, err := other.Subscribe(s.directSubject(), func(m *nats.Msg) { r.answer(t, other, m) }); err != nil {
		t.Fatal(err)
	}
	if err := other.Flush(); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *replica) answer(t *testing.T, nc *nats.Conn, m *nats.Msg) {
	var req getRequest
	if err := json.Unmarshal(m.Data, &req); err != nil {
		t.Error(err)
	}
	r.asked++
	reply := func(h nats.Header, data []byte) {
		_ = nc.PublishMsg(&nats.Msg{Subject: m.Reply, Header: h, Data: data})
	}
	missing := nats.Header{hdrStatus: {"404"}, hdrDescription: {"Message Not Found"}}
	with := func(one message, before uint64) {
		h := nats.Header{hdrSequence: {fmt.Sprint(one.Seq)}, hdrSubject: {one.Subject}, hdrLast: {fmt.Sprint(before)}}
		if k := one.header.Get(chunkHeader); k != "" {
			h.Set(chunkHeader, k)
		}
		reply(h, one.Data)
	}
	if len(req.MultiLast) == 0 {
		one, err := r.s.leader(t.Context(), getRequest{Seq: req.Seq, NextFor: req.NextFor})
		if err != nil || one.Seq > r.last || req.Batch > 0 {
			reply(missing, nil)
			return
		}
		with(one, 0)
		return
	}
	upTo := uint64(1 << 40)
	if r.multi > 0 {
		r.multi--
		upTo = r.last
	}
	var last uint64
	for _, subject := range req.MultiLast {
		one, err := r.s.leader(t.Context(), getRequest{LastFor: subject})
		if errors.Is(err, errNoMessage) || one.Seq > upTo {
			continue
		}
		if !r.drop || last > 0 { // the first one
			with(one, last)
		}
		last = one.Seq
	}
	reply(nats.Header{hdrStatus: {"204"}, hdrLast: {fmt.Sprint(last)}, hdrUpTo: {fmt.Sprint(upTo)}}, nil)
}
