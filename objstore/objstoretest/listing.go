package objstoretest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/objstore"
)

func testList(t *testing.T, b Backend) {
	s := b.open(t)
	if got := listKeys(t, s, "", ""); got != "" {
		t.Fatalf("a new prefix lists %q", got)
	}
	for _, key := range []string{"app/0001/2.ltx", "app/0001/1.ltx", "app/0001/10.ltx", "app/0009/1.ltx", "app2/0001/5.ltx", "z.ltx"} {
		putString(t, s, key, key)
	}
	for _, c := range []struct{ prefix, after, want string }{
		{"", "", "app/0001/1.ltx app/0001/10.ltx app/0001/2.ltx app/0009/1.ltx app2/0001/5.ltx z.ltx"},
		{"app/", "", "app/0001/1.ltx app/0001/10.ltx app/0001/2.ltx app/0009/1.ltx"},
		{"app", "", "app/0001/1.ltx app/0001/10.ltx app/0001/2.ltx app/0009/1.ltx app2/0001/5.ltx"},
		{"app/0001/", "", "app/0001/1.ltx app/0001/10.ltx app/0001/2.ltx"},
		{"app/0001/1", "", "app/0001/1.ltx app/0001/10.ltx"},
		{"app/0001/", "app/0001/10.ltx", "app/0001/2.ltx"},
		{"app/0001/", "app/0001/1", "app/0001/1.ltx app/0001/10.ltx app/0001/2.ltx"},
		{"app/0001/", "app/0001/2.ltx", ""},
		{"app/0001/", "app/0001/zzz", ""},
		{"app/0001/", "a", "app/0001/1.ltx app/0001/10.ltx app/0001/2.ltx"},
		{"", "app/0009/1.ltx", "app2/0001/5.ltx z.ltx"},
		{"app/0002/", "", ""},
		{"nothing/", "", ""},
		{"z.ltx", "", "z.ltx"},
	} {
		if got := listKeys(t, s, c.prefix, c.after); got != c.want {
			t.Errorf("list %q after %q:\n%s\nwant\n%s", c.prefix, c.after, got, c.want)
		}
	}
	for _, info := range list(t, s, "app", "") {
		if info.Size != int64(len(info.Key)) {
			t.Errorf("%s: size %d, want %d", info.Key, info.Size, len(info.Key))
		}
	}
	for range s.List(t.Context(), "", "") {
		break // a listing left early must not hang or leak
	}
}

// testListOrder: by bytes of the whole key; '-' and '.' sort before '/'.
func testListOrder(t *testing.T, b Backend) {
	s := b.open(t)
	keys := []string{"a-b/x.ltx", "a.b/x.ltx", "a/x.ltx", "a/b-c/1.ltx", "a/b/1.ltx", "a/b.ltx", "a0/x.ltx", "A/x.ltx", "_a.ltx", "b.ltx", "b/1.ltx", "b-.ltx"}
	for _, key := range keys {
		putString(t, s, key, "x")
	}
	slices.Sort(keys)
	if got := listKeys(t, s, "", ""); got != strings.Join(keys, " ") {
		t.Errorf("listed\n%s\nwant\n%s", got, strings.Join(keys, " "))
	}
	for i, after := range keys {
		if got, want := listKeys(t, s, "", after), strings.Join(keys[i+1:], " "); got != want {
			t.Errorf("after %q\n%s\nwant\n%s", after, got, want)
		}
	}
}

// fill puts n small objects under prefix and returns their keys in order.
func fill(t *testing.T, s objstore.Store, prefix string, n int) []string {
	t.Helper()
	keys := make([]string, n)
	var g errgroup.Group
	g.SetLimit(16)
	for i := range keys {
		keys[i] = fmt.Sprintf("%s%016x-%016x.ltx", prefix, i+1, i+1)
		g.Go(func() error {
			_, err := s.Put(t.Context(), keys[i], strings.NewReader("x"), objstore.PutOptions{Timestamp: stamp})
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	return keys
}

// testMany puts more objects than a page or a batch holds: they are listed
// page by page, on demand, with a seek no more pages than needed, and deleted
// in batches.
func testMany(t *testing.T, b Backend) {
	n := 2*max(b.ListPage, b.DeleteBatch) + 10
	if b.ListPage == 0 && b.DeleteBatch <= 1 || b.Quick {
		n = 50
	}
	s := b.open(t)
	keys := fill(t, s, "db/ltx/1/", n)
	kept := fill(t, s, "db/ltx/2/", 3)
	if got := listKeys(t, s, "db/ltx/1/", ""); got != strings.Join(keys, " ") {
		t.Fatalf("a listing of %d objects differs", n)
	}
	if got := listKeys(t, s, "db/ltx/1/", keys[n-3]); got != strings.Join(keys[n-2:], " ") {
		t.Fatalf("the end is %q", got)
	}
	if b.ListPage > 0 {
		pages := pieces(n, b.ListPage)
		b.cost(t, "list all", pages*b.Budget.ListPerPage, func() { list(t, s, "db/ltx/1/", "") })
		b.cost(t, "list the end", b.Budget.ListPerPage, func() { list(t, s, "db/ltx/1/", keys[n-3]) })
		b.cost(t, "list the first", b.Budget.ListPerPage, func() {
			for range s.List(t.Context(), "db/ltx/1/", "") {
				break
			}
		})
	}
	slices.Reverse(keys)
	remove := func() {
		if err := s.Delete(t.Context(), keys...); err != nil {
			t.Fatal(err)
		}
	}
	if b.DeleteBatch > 0 {
		b.cost(t, "delete all", pieces(n, b.DeleteBatch)*b.Budget.DeletePerBatch, remove)
	} else {
		remove()
	}
	if got := listKeys(t, s, "", ""); got != strings.Join(kept, " ") {
		t.Fatalf("left %q", got)
	}
}

// pieces is how many pieces of that size n takes.
func pieces(n, size int) int64 { return int64((n + size - 1) / size) }

// cost fails if call takes more than want requests, where they are counted.
func (b Backend) cost(t *testing.T, what string, want int64, call func()) {
	t.Helper()
	if b.Requests == nil {
		call()
		return
	}
	before := b.Requests()
	call()
	if got := b.Requests() - before; got > want {
		t.Errorf("%s: %d requests, want at most %d", what, got, want)
	}
}

func testListTimestamps(t *testing.T, b Backend) {
	s := b.open(t)
	putString(t, s, "a/x.ltx", "x")
	for _, info := range list(t, s, "a/", "") {
		if b.ListTimestamps {
			b.checkStamp(t, info)
		} else if !info.Timestamp.IsZero() {
			t.Errorf("the listing tells timestamp %s, want none", info.Timestamp)
		}
	}
}

// clockError is how far the storage's clock may be from ours; some keep whole
// seconds.
const clockError = 2 * time.Second

// testModified: List and Stat tell when the storage wrote an object, by its own
// clock and in UTC, whatever timestamp it was put with.
func testModified(t *testing.T, b Backend) {
	s := b.open(t)
	var last time.Time
	for round := range 2 { // the second one replaces the first
		before := time.Now()
		put(t, s, "a/x.ltx", content(uint64(round), 100))
		infos := list(t, s, "a/", "")
		stat, err := s.Stat(t.Context(), "a/x.ltx")
		if err != nil || len(infos) != 1 {
			t.Fatalf("%d objects, stat: %v", len(infos), err)
		}
		for call, info := range map[string]objstore.Info{"list": infos[0], "stat": stat} {
			switch at := info.Modified; {
			case at.Location() != time.UTC || !at.Equal(stat.Modified):
				t.Errorf("%s: modified %s, stat says %s; want the same, in UTC", call, at, stat.Modified)
			case b.OneTime && !at.Truncate(max(b.Coarse, 1)).Equal(stamp.Truncate(max(b.Coarse, 1))):
				t.Errorf("%s: modified %s, want %s", call, at, stamp)
			case !b.OneTime && (at.Before(before.Add(-clockError)) || at.After(time.Now().Add(clockError))):
				t.Errorf("%s: modified %s, it was put at %s", call, at, before)
			}
		}
		if stat.Modified.Before(last) {
			t.Errorf("modified %s, and before that %s", stat.Modified, last)
		}
		last = stat.Modified
	}
}

func testDelete(t *testing.T, b Backend) {
	s := b.open(t)
	for _, key := range []string{"a/1.ltx", "a/2.ltx", "a/3.ltx", "b/1.ltx"} {
		putString(t, s, key, "x")
	}
	if err := s.Delete(t.Context()); err != nil {
		t.Fatalf("delete of nothing: %v", err)
	}
	if err := s.Delete(t.Context(), "a/1.ltx", "a/missing.ltx", "a/3.ltx"); err != nil {
		t.Fatal(err)
	}
	if got := listKeys(t, s, "", ""); got != "a/2.ltx b/1.ltx" {
		t.Fatalf("left %q", got)
	}
	n, err := objstore.DeletePrefix(t.Context(), s, "a/")
	if err != nil || n != 1 {
		t.Fatalf("DeletePrefix %d, %v", n, err)
	}
	if n, err = objstore.DeletePrefix(t.Context(), s, ""); err != nil || n != 1 {
		t.Fatalf("DeletePrefix of all %d, %v", n, err)
	}
	if got := listKeys(t, s, "", ""); got != "" {
		t.Fatalf("left %q", got)
	}
}

func testBudget(t *testing.T, b Backend) {
	if b.Requests == nil {
		t.Skip("requests are not counted")
	}
	var s objstore.Store
	b.cost(t, "open", b.Budget.Open, func() { s = b.open(t) })
	putString(t, s, "a/warm.ltx", "x") // connections, tokens
	b.cost(t, "small put", b.Budget.SmallPut, func() { put(t, s, "a/x.ltx", content(1, 5000)) })
	b.cost(t, "get", b.Budget.Get, func() { get(t, s, "a/x.ltx", 0, -1) })
	b.cost(t, "get range", b.Budget.Get, func() { get(t, s, "a/x.ltx", 100, 50) })
	b.cost(t, "stat", b.Budget.Stat, func() {
		if _, err := s.Stat(t.Context(), "a/x.ltx"); err != nil {
			t.Error(err)
		}
	})
	b.cost(t, "list", b.Budget.ListPerPage, func() { list(t, s, "a/", "") })
	b.cost(t, "delete", b.Budget.DeletePerBatch, func() {
		if err := s.Delete(t.Context(), "a/x.ltx"); err != nil {
			t.Error(err)
		}
	})
}
