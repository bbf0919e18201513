package natsobj

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/objstore"
)

// TestForeignObjectsAreListed: those that something else put, before the index
// knows of them, once it does, and those that came later.
func TestForeignObjectsAreListed(t *testing.T) {
	s, b := archive(t)
	var want []string
	for i := range 150 {
		name := fmt.Sprintf("db/ltx/1/%03d.ltx", i)
		if _, err := b.PutString(t.Context(), name, name); err != nil {
			t.Fatal(err)
		}
		want = append(want, name)
	}
	check := func(when string) {
		t.Helper()
		for _, s := range []*Store{s, reopen(t, s)} {
			if got := keys(t, s, "db/ltx/1/"); got != strings.Join(want, " ") {
				t.Errorf("%s: %s", when, got)
			}
		}
	}
	check("before")
	if n := len(stored(t, s, s.subject(".C.ltx-names.", ">"))); n != 0 {
		t.Fatalf("reading made %d names", n)
	}
	put(t, s, "db/ltx/1/own.ltx", []byte("x"))
	want = append(want, "db/ltx/1/own.ltx")
	if n := len(stored(t, s, s.subject(".C.ltx-names.", ">"))); n != 151 {
		t.Errorf("a put made %d names, want 151", n)
	}
	check("with names")
	if len(s.tail.names) != 0 {
		t.Errorf("%d names in the tail of who named them", len(s.tail.names))
	}
	for _, name := range []string{"db/ltx/1/x.ltx", "db/ltx/1/y.ltx"} {
		if _, err := b.PutString(t.Context(), name, name); err != nil {
			t.Fatal(err)
		}
		want = append(want, name)
	}
	check("with a tail")
}

// TestNamesComeInPortions: a large foreign bucket does not make one Put slow.
func TestNamesComeInPortions(t *testing.T) {
	s, _ := archive(t)
	all := level("db/ltx/1/", nameMost+200)
	putMany(t, s, all)
	names := func() int { return len(stored(t, s, s.subject(".C.ltx-names.", ">"))) }
	for turn, want := range []int{nameMost, len(all) + 2} {
		put(t, s, fmt.Sprintf("db/x%d.ltx", turn), nil)
		if n := names(); n != want {
			t.Errorf("%d names after put %d, want %d", n, turn+1, want)
		}
	}
	if got := keys(t, reopen(t, s), "db/ltx/1/"); got != strings.Join(all, " ") {
		t.Error("listing differs")
	}
}

// TestEveryCrash: what a process that is killed between two steps leaves is
// listed right, and swept.
func TestEveryCrash(t *testing.T) {
	s, _ := archive(t)
	put(t, s, "keep/1.ltx", content(10))

	// Put: chunks without a meta.
	u := s.newUpload("keep/broken.ltx", objstore.PutOptions{})
	if err := u.send(t.Context(), bytes.NewReader(content(3*chunkSize))); err != nil {
		t.Fatal(err)
	}
	// Overwrite: the old chunks stay.
	put(t, s, "keep/2.ltx", content(20))
	old, err := s.look(t.Context(), "keep/2.ltx")
	if err != nil {
		t.Fatal(err)
	}
	u = s.newUpload("keep/2.ltx", objstore.PutOptions{})
	if err := u.send(t.Context(), bytes.NewReader(content(30))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.publish(t.Context(), s.metaSubject("keep/2.ltx"), onlyOne("", nil).Header, metaMessage(t, s, u).Data); err != nil {
		t.Fatal(err)
	}
	// Naming: names, but no mark.
	if err := s.publishNames(t.Context(), []string{"keep/1.ltx"}, 0); err != nil {
		t.Fatal(err)
	}
	// Delete: after the meta; the chunks and the name stay.
	put(t, s, "keep/gone.ltx", content(10))
	nameAll(t, s)
	gone, err := s.look(t.Context(), "keep/gone.ltx")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.purge(t.Context(), s.metaSubject("keep/gone.ltx"), gone.seq); err != nil {
		t.Fatal(err)
	}

	check := func() {
		t.Helper()
		for _, s := range []*Store{s, reopen(t, s)} {
			if got := keys(t, s, ""); got != "keep/1.ltx keep/2.ltx" {
				t.Errorf("listed %s", got)
			}
			if got := get(t, s, "keep/2.ltx", 0, -1); !bytes.Equal(got, content(30)) {
				t.Errorf("%d bytes", len(got))
			}
		}
	}
	check()
	for _, nuid := range []string{old.NUID, gone.NUID} {
		if n := stored(t, s, s.chunkSubject(nuid)); len(n) != 1 {
			t.Fatalf("the test left no debris: %v", n)
		}
	}
	if swept, err := s.Sweep(t.Context(), MinSweepAge); err != nil || swept.Uploads != 0 || swept.Unnamed != 1 {
		t.Errorf("swept %+v, %v: want no chunks that young", swept, err)
	}
	wantChunks(t, s, 5)
	swept, err := s.sweep(t.Context(), 0)
	if err != nil || swept.Uploads != 3 || swept.Named != 0 {
		t.Errorf("swept %+v, %v: want three uploads", swept, err)
	}
	wantChunks(t, s, 2)
	check()
	if swept, err := s.sweep(t.Context(), 0); err != nil || swept != (Swept{}) {
		t.Errorf("swept again %+v, %v", swept, err)
	}
}

// TestSweepRepairsTheIndex: names that are gone although the mark says that
// they are there.
func TestSweepRepairsTheIndex(t *testing.T) {
	s, b := archive(t)
	all := level("db/ltx/1/", 100)
	putMany(t, s, all)
	nameAll(t, s)
	if err := s.purge(t.Context(), s.nameSubject(all[3]), 0); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, reopen(t, s), ""); got == strings.Join(all, " ") {
		t.Fatal("the test lost no name")
	}
	if err := b.Delete(t.Context(), all[5]); err != nil {
		t.Fatal(err)
	}
	swept, err := s.sweep(t.Context(), 0)
	if err != nil || swept != (Swept{Named: 1, Unnamed: 1, Deletions: 1}) {
		t.Errorf("swept %+v, %v", swept, err)
	}
	if got := keys(t, reopen(t, s), ""); got != strings.Join(slices.Delete(all, 5, 6), " ") {
		t.Errorf("listed %s", got)
	}
	if _, err := s.Sweep(t.Context(), MinSweepAge-1); err == nil {
		t.Error("a sweep of what may still be written is not refused")
	}
}

// TestSweepDuringPuts: a sweep, even of no age, takes nothing from the objects
// that are there, and a Put that it robbed fails.
func TestSweepDuringPuts(t *testing.T) {
	s, _ := archive(t)
	u := s.newUpload("slow.ltx", objstore.PutOptions{})
	u.began = time.Now().Add(-MinSweepAge)
	if err := u.send(t.Context(), bytes.NewReader(content(2*chunkSize))); err != nil {
		t.Fatal(err)
	}
	if err := u.complete(t.Context()); err != nil {
		t.Fatalf("complete: %v", err)
	}
	if _, err := s.sweep(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := u.commit(t.Context(), objstore.PutOptions{Timestamp: stamp}); err == nil {
		t.Fatal("a put whose chunks are gone succeeds")
	}
	if got := keys(t, s, ""); got != "" {
		t.Fatalf("listed %s", got)
	}
}

// TestPutsAndDeletesOfOneName: whatever they do to one another, at the end the
// listing agrees with the object.
func TestPutsAndDeletesOfOneName(t *testing.T) {
	s, _ := archive(t)
	for round := range 20 {
		var g errgroup.Group
		for i := range 6 {
			g.Go(func() error {
				mine := reopen(t, s)
				for range 3 {
					var err error
					switch i {
					case 0:
						err = mine.Delete(t.Context(), "a.ltx")
					case 1:
						var names []string
						var mark uint64
						if names, mark, err = mine.unnamed(t.Context()); err == nil {
							err = mine.publishNames(t.Context(), names, mark)
						}
					case 2:
						_, err = mine.sweep(t.Context(), time.Hour)
					default:
						_, err = mine.Put(t.Context(), "a.ltx", bytes.NewReader(content(i)), objstore.PutOptions{Timestamp: stamp})
					}
					if err != nil {
						return fmt.Errorf("%d: %w", i, err)
					}
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
		o, err := s.look(t.Context(), "a.ltx")
		if err != nil {
			t.Fatal(err)
		}
		want := ""
		if o.live() {
			want = "a.ltx"
		}
		for _, s := range []*Store{s, reopen(t, s)} {
			if got := keys(t, s, ""); got != want {
				t.Fatalf("round %d: listed %q, want %q", round, got, want)
			}
		}
	}
	if err := s.Delete(t.Context(), "a.ltx"); err != nil {
		t.Fatal(err)
	}
	wantChunks(t, s, 0)
}

// TestDeleteSparesWhatCameLater: a Delete that goes on slowly removes neither
// the meta nor the name of an object that was put meanwhile.
func TestDeleteSparesWhatCameLater(t *testing.T) {
	s, _ := archive(t)
	put(t, s, "a.ltx", content(1))
	nameAll(t, s)
	i, err := s.info(t.Context(), "", 0)
	if err != nil {
		t.Fatal(err)
	}
	o, err := s.look(t.Context(), "a.ltx")
	if err != nil {
		t.Fatal(err)
	}
	put(t, s, "a.ltx", content(2)) // between the steps of a Delete
	nameAll(t, s)
	if err := s.erase(t.Context(), "a.ltx", o, i.State.LastSeq); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, reopen(t, s), ""); got != "a.ltx" {
		t.Errorf("listed %q", got)
	}
}

// TestNamesAreNewerThanMetas: once the mark is past a meta. A Delete of what
// was there before may still be about to purge the older name.
func TestNamesAreNewerThanMetas(t *testing.T) {
	for what, name := range map[string]func(*Store){
		"put":   func(s *Store) { nameAll(t, s) },
		"sweep": func(s *Store) { _, _ = s.sweep(t.Context(), time.Hour) },
	} {
		s, _ := archive(t)
		put(t, s, "a.ltx", content(1))
		nameAll(t, s)
		put(t, s, "a.ltx", content(2))
		name(s)
		meta, err := s.look(t.Context(), "a.ltx")
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.leader(t.Context(), getRequest{LastFor: s.nameSubject("a.ltx")})
		if err != nil {
			t.Fatal(err)
		}
		mark, err := s.mark(t.Context())
		if err != nil || mark >= meta.seq && m.Seq < meta.seq {
			t.Errorf("%s: mark %d (%v), meta %d, name %d", what, mark, err, meta.seq, m.Seq)
		}
	}
}

// TestBucketMadeAnew: a store that lives on after the bucket was deleted and
// created again, whose sequences begin anew.
func TestBucketMadeAnew(t *testing.T) {
	s, _ := archive(t)
	for i := range 20 {
		put(t, s, fmt.Sprintf("old/%d.ltx", i), content(5))
	}
	keys(t, s, "")
	if err := s.cfg.JS.DeleteObjectStore(t.Context(), "archive"); err != nil {
		t.Fatal(err)
	}
	for _, err := range s.List(t.Context(), "", "") {
		if !errors.Is(err, errNoBucket) {
			t.Fatalf("list: %v", err)
		}
	}
	bucket(t, s.cfg.JS, "archive", 1)
	put(t, reopen(t, s), "new.ltx", content(5))
	if got := keys(t, s, ""); got != "new.ltx" {
		t.Errorf("listed %q", got)
	}
	s.naming.left.Store(0)
	putMany(t, s, level("a/", nameLeast))
	put(t, s, "b.ltx", nil) // which names them
	if mark, err := s.mark(t.Context()); err != nil || mark == 0 || mark > nameLeast+5 {
		t.Errorf("mark %d, %v", mark, err)
	}
	putMany(t, reopen(t, s), []string{"c.ltx"})
	for _, s := range []*Store{s, reopen(t, s)} {
		if got := keys(t, s, ""); got != strings.Join(append(level("a/", nameLeast), "b.ltx", "c.ltx", "new.ltx"), " ") {
			t.Errorf("listed %q", got)
		}
	}
}

// cost is what one listing of a level sends and receives.
type cost struct{ requests, messages, bytes uint64 }

func listCost(t testing.TB, s *Store, prefix string, want int) cost {
	t.Helper()
	keys(t, s, "warm/") // the tail
	before := s.nc.Stats()
	if got := len(strings.Fields(keys(t, s, prefix))); got != want {
		t.Fatalf("listed %d objects, want %d", got, want)
	}
	after := s.nc.Stats()
	return cost{after.OutMsgs - before.OutMsgs, after.InMsgs - before.InMsgs, after.InBytes - before.InBytes}
}

// TestListingCostsItsLevel: not the bucket, and not what was deleted.
func TestListingCostsItsLevel(t *testing.T) {
	s, _ := archive(t)
	const n = 550 // two pages
	putMany(t, s, level("app/ltx/1/", n))
	nameAll(t, s)
	small := listCost(t, s, "app/ltx/1/", n)
	for i := range 4 {
		putMany(t, s, level(fmt.Sprintf("other%d/ltx/1/", i), 400))
	}
	nameAll(t, s)
	large := listCost(t, s, "app/ltx/1/", n)
	remove(t, s, level("other3/ltx/1/", 150)...)
	putMany(t, s, level("app/ltx/2/", 150))
	nameAll(t, s)
	remove(t, s, level("app/ltx/2/", 150)...)
	deleted := listCost(t, s, "app/ltx/1/", n)
	t.Logf("alone: %+v; among four times as many: %+v; after 300 deletions: %+v", small, large, deleted)
	for what, c := range map[string]cost{"in a large bucket": large, "after deletions": deleted} {
		if c.requests != small.requests || c.messages != small.messages || c.bytes > small.bytes+small.bytes/50 {
			t.Errorf("%s: %+v, in a small one %+v", what, c, small)
		}
	}
	if last := lastSeq(t, s); s.tail.cursor < last {
		t.Errorf("the next scan begins at %d, the stream is at %d", s.tail.cursor, last)
	}
	if small.requests > 4 {
		t.Errorf("%d requests for two pages", small.requests)
	}
	if c := listCost(t, s, "app/ltx/2/", 0); c.bytes > 5000 {
		t.Errorf("an emptied level costs %+v", c)
	}
}

// BenchmarkList lists one level of 1,000 objects.
func BenchmarkList(b *testing.B) {
	for _, others := range []int{0, 49_000} {
		s, _ := archive(b)
		putMany(b, s, level("app/ltx/1/", 1000))
		for i := 0; i < others; i += 1000 {
			putMany(b, s, level(fmt.Sprintf("other%d/ltx/1/", i), 1000))
		}
		nameAll(b, s)
		run := func(name string) {
			b.Run(name, func(b *testing.B) {
				var took []time.Duration
				for b.Loop() {
					start := time.Now()
					keys(b, s, "app/ltx/1/")
					took = append(took, time.Since(start))
				}
				slices.Sort(took) // a busy machine says little by its mean
				b.ReportMetric(float64(took[0].Microseconds())/1000, "ms-best")
				b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "ms-median")
			})
		}
		run(fmt.Sprintf("1000of%d", 1000+others))
		if others > 0 {
			for i := 0; i < 5000; i += 1000 {
				remove(b, s, level(fmt.Sprintf("other%d/ltx/1/", i), 1000)...)
			}
			run("after5000deletes")
		}
	}
}

// BenchmarkListByClient is what the client library does to find the same.
func BenchmarkListByClient(b *testing.B) {
	s, store := archive(b)
	putMany(b, s, level("app/ltx/1/", 50_000))
	for b.Loop() {
		if _, err := store.List(context.Background()); err != nil && !errors.Is(err, jetstream.ErrNoObjectsFound) {
			b.Fatal(err)
		}
	}
}
