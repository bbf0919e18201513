package archiver

import (
	"bytes"
	"context"
	"sync/atomic"
	"testing"

	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/wire"
)

// TestNewestFileUnreadable: an archive whose newest file cannot be read ends before
// it. It is written again where the stream still has it, else the publisher is
// asked for a full file.
func TestNewestFileUnreadable(t *testing.T) {
	t.Parallel()
	for name, purged := range map[string]bool{"still in the stream": false, "no more in the stream": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			js := streamtest.Connect(t, newServer(t))
			src := newSource(t, js, "app", 14)
			dest := newTarget()
			cfg := quickly(t, js, dest)
			cfg.Schedule = daily
			var asked atomic.Int64
			cfg.AskFull = func(context.Context, wire.DB) error { asked.Add(1); return nil }
			_, stop := start(t, cfg)
			src.publish(t, 3)
			reached(t, dest, "app", 3)
			src.publish(t, 3)
			reached(t, dest, "app", 6)
			stop()
			cutFile(t, dest, levels.Newest(filesOf(t, dest, levels.First)))
			if purged {
				str, err := js.Stream(t.Context(), wire.DefaultStream)
				if err == nil {
					err = str.Purge(t.Context())
				}
				if err != nil {
					t.Fatal(err)
				}
			}

			start(t, cfg)
			if purged {
				src.LastSeq = 0
				src.publish(t, 1)
				streamtest.Eventually(t, "asked", func() bool { return asked.Load() > 0 })
				src.publishFull(t)
			}
			src.publish(t, 2)
			reached(t, dest, "app", src.published)
			src.check(t, dest, src.published)
			src.check(t, dest, 3)
		})
	}
}

// cutFile leaves ten bytes of a stored file.
func cutFile(t *testing.T, dest *target, f levels.File) {
	t.Helper()
	key := dest.archive().Key("app", f)
	b, err := objstore.ReadAll(t.Context(), dest.Store, key)
	if err == nil {
		_, err = dest.Store.Put(t.Context(), key, bytes.NewReader(b[:10]), objstore.PutOptions{Timestamp: f.Timestamp})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func filesOf(t *testing.T, dest *target, level levels.Level) (files []levels.File) {
	t.Helper()
	for f, err := range dest.archive().Files(t.Context(), "app", level, 0) {
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}
