package tail

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/objstore/dir"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/wire"
)

// Config of a [Fetch]. JS, DB and Dir are required.
type Config struct {
	JS     jetstream.JetStream
	Stream string // default wire.DefaultStream
	DB     wire.DB
	// After is where the archive ends: files behind it are fetched. Zero: all
	// from the oldest full file of the stream on; without a checksum, where
	// Litestream wrote the end, all from the first full file behind it on.
	After ltx.Pos
	// Dir gets the files; it must exist and be empty.
	Dir string
	// Enough is asked before each file; true ends the fetch. nil: what the
	// stream has when the fetch begins.
	Enough func(next wire.Meta) bool
	Logger *slog.Logger // default slog.Default()
}

// Fetched is what came.
type Fetched struct {
	Archive *levels.Archive // on Dir; level 0, and a snapshot where After had no checksum
	Files   int
	Bytes   int64
	Last    ltx.Pos // position behind the last file, After when none came
}

// Fetch copies files until it has what the stream had when it began. Errors:
// stream.ErrNoStream, [*feed.GapError], [*feed.ForkError], feed.ErrNoBase.
func Fetch(ctx context.Context, cfg Config) (f Fetched, err error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	store, err := dir.New(ctx, dir.Config{Path: cfg.Dir})
	if err != nil {
		return f, err
	}
	f.Archive, f.Last = levels.New(store, levels.Decimal), cfg.After
	str, err := stream.Open(ctx, cfg.JS, cfg.Stream)
	if err != nil {
		return f, err
	}
	head, err := str.Head(ctx, cfg.DB)
	if err != nil {
		return f, err
	}
	if head.Data == nil || head.Data.Meta.Max <= cfg.After.TXID {
		return f, cfg.ended(head)
	}
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails
	consumer := "tail-" + hex.EncodeToString(id[:])
	fd, err := feed.New(feed.Config{
		Stream: str, JS: cfg.JS, DB: cfg.DB, Durable: consumer, SpoolDir: cfg.Dir, Oldest: true, Logger: cfg.Logger,
	})
	if err != nil {
		return f, err
	}
	defer func() {
		err = errors.Join(err, fd.Close())
		// Where deleting is not permitted, it goes by itself when it is idle.
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = cfg.JS.DeleteConsumer(last, str.Name(), consumer)
	}()
	if err := fd.Seek(ctx, cfg.After, 0); err != nil {
		return f, err
	}
	for f.Last.TXID < head.Data.Meta.Max {
		file, err := fd.Next(ctx)
		if err != nil {
			return f, err
		}
		enough, err := f.add(ctx, cfg, file)
		if err := errors.Join(err, file.Close()); err != nil || enough {
			return f, err
		}
	}
	return f, nil
}

// ended looks at a stream that has nothing behind the archive's end.
func (cfg Config) ended(head stream.Head) error {
	if head.Data == nil {
		return nil
	}
	switch m := head.Data.Meta; {
	case m.Max < cfg.After.TXID:
		cfg.Logger.Warn("the stream ends before the archive: its publisher will send the rest again, or it is of another history",
			"db", string(cfg.DB), "txid", m.Max, "archived", cfg.After.TXID)
	case cfg.After.PostApplyChecksum != 0 && m.PostPos() != cfg.After:
		return &feed.ForkError{DB: cfg.DB, Have: cfg.After, Got: m.PostPos()}
	}
	return nil
}

// add stores one file, unless it is more than what is wanted.
func (f *Fetched) add(ctx context.Context, cfg Config, file *feed.File) (enough bool, err error) {
	m := file.Meta
	if cfg.Enough != nil && cfg.Enough(m) {
		return true, nil
	}
	fresh := f.Last.PostApplyChecksum == 0 // nothing that it could contradict
	if m.Full && m.PrePos() != f.Last && !fresh {
		return false, &feed.GapError{DB: cfg.DB, Want: f.Last.TXID + 1, Got: m.Min}
	}
	if m.Full && m.Min > 1 && fresh {
		err = f.addSnapshot(ctx, cfg, file)
	} else {
		_, err = f.Archive.Put(ctx, string(cfg.DB), levels.File{Level: levels.Stream, Min: m.Min, Max: m.Max, Timestamp: m.Timestamp}, file.Section(ctx), nil)
	}
	if err != nil {
		return false, fmt.Errorf("store TXID %s of the stream: %w", m.Max, err)
	}
	f.Files, f.Bytes, f.Last = f.Files+1, f.Bytes+m.Size, m.PostPos()
	return false, nil
}

// addSnapshot stores a full file as what it is: the whole database.
func (f *Fetched) addSnapshot(ctx context.Context, cfg Config, file *feed.File) error {
	input := compactor.Input{Name: fmt.Sprintf("TXID %s of the stream", file.Meta.Max), Open: func(ctx context.Context) (io.ReadCloser, error) {
		return io.NopCloser(file.Section(ctx)), nil
	}}
	store := compactor.StoreConfig{Archive: f.Archive, DB: string(cfg.DB), MergeOptions: compactor.MergeOptions{SpillDir: cfg.Dir}}
	_, _, err := compactor.Store(ctx, store, levels.Snapshot, []compactor.Input{input}, file.Meta.Size)
	return err
}
