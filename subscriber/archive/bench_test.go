package archive

import (
	"bytes"
	"fmt"
	"log/slog"
	"testing"

	"github.com/ltxstream/ltxstream/objstore/dir"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/testenv/history"

	"errors"
)

// BenchmarkPoll is one look at a directory in which nothing is new, and one with a
// new file among many: five minutes of Litestream at ten files a second.
func BenchmarkPoll(b *testing.B) {
	const files = 3000
	h := history.New(b, history.Config{Seed: 1, NoChecksums: true, MaxBlob: 100})
	h.Grow(b, files)
	store, err := dir.New(b.Context(), dir.Config{Path: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	a := levels.New(store, levels.Decimal)
	for txid := range h.Len() {
		f := levels.File{Level: levels.Stream, Min: txid + 1, Max: txid + 1, Timestamp: h.State(txid + 1).Time}
		if _, err := a.Put(b.Context(), "app", f, bytes.NewReader(h.File(txid+1)), nil); err != nil {
			b.Fatal(err)
		}
	}
	for _, behind := range []int{0, 1} {
		b.Run(fmt.Sprintf("new=%d", behind), func(b *testing.B) {
			f := &Follower{Archive: a, StateDir: b.TempDir(), Dir: b.TempDir(), Logger: slog.New(slog.DiscardHandler)}
			at := h.State(h.Len() - 1).Pos
			if behind == 0 {
				at = h.Last().Pos
			}
			file := levels.File{Level: levels.Stream, Min: at.TXID, Max: at.TXID}
			s := newSearch(&Bootstrapper{Archive: a}, "app", at)
			s.used = []levels.File{file}
			if err := f.note(s, nil, &subscriber.Base{Timestamp: h.State(at.TXID).Time}); err != nil {
				b.Fatal(err)
			}
			if _, err := f.Base(b.Context(), "app", at); err != nil && !errors.Is(err, subscriber.ErrUpToDate) {
				b.Fatal(err)
			}
			for b.Loop() {
				base, err := f.Base(b.Context(), "app", at)
				if behind == 0 != errors.Is(err, subscriber.ErrUpToDate) {
					b.Fatal(err)
				}
				if base != nil {
					base.Close()
				}
			}
		})
	}
}
