package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	litestreamIncrements = 200
	litestreamRows       = 200 // changed by each
)

// besideLitestream restores one archive of Litestream's in a directory, a snapshot
// and many increments, with Litestream and with ltx-archive, in turns.
func besideLitestream(ctx context.Context, b *bench) error {
	if !b.hasLitestream("restore beside Litestream") {
		return nil
	}
	dir, err := b.scratch()
	if err != nil {
		return err
	}
	began := time.Now()
	archive, err := b.litestreamArchive(ctx, dir)
	if err != nil {
		return err
	}
	fmt.Printf("\na Litestream archive with a snapshot and %d increments of %d rows was made in %s\n", litestreamIncrements, litestreamRows, time.Since(began).Round(time.Second))
	theirs, ours := filepath.Join(dir, "theirs.db"), filepath.Join(dir, "ours.db")
	for round := range b.rounds {
		a, aPeak, err := timed(ctx, b.litestream, "restore", "-o", theirs, "file://"+archive)
		if err != nil {
			return err
		}
		o, oPeak, err := timed(ctx, filepath.Join(b.bin, "ltx-archive"), "restore", archive, ".", ours, "--no-stream", "--integrity-check", "none")
		if err != nil {
			return err
		}
		size, err := sameDatabase(ctx, theirs, ours)
		if err != nil {
			return err
		}
		if err := errors.Join(os.Remove(theirs), os.Remove(ours)); err != nil {
			return err
		}
		mb := float64(size) / 1e6
		if round == 0 {
			fmt.Printf("\n| restore of %.0f MB | Litestream | ltx-archive | ratio | peak memory of Litestream | of ltx-archive |\n|---|---|---|---|---|---|\n", mb)
		}
		fmt.Printf("| | %.2f s, %.0f MB/s | %.2f s, %.0f MB/s | %.1f | %.0f MiB | %.0f MiB |\n",
			a.Seconds(), mb/a.Seconds(), o.Seconds(), mb/o.Seconds(), a.Seconds()/o.Seconds(), mib(aPeak), mib(oPeak))
	}
	return nil
}

// sameDatabase returns the size of two files, an error where they differ.
func sameDatabase(ctx context.Context, a, b string) (int64, error) {
	if _, _, err := timed(ctx, "cmp", a, b); err != nil {
		return 0, err
	}
	st, err := os.Stat(a)
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// litestreamArchive has Litestream write an archive, and returns its directory.
func (b *bench) litestreamArchive(ctx context.Context, dir string) (archive string, err error) {
	db, config := filepath.Join(dir, "app.db"), filepath.Join(dir, "litestream.yml")
	archive = filepath.Join(dir, "archive")
	if err := fillTable(ctx, db, b.bulkMiB); err != nil {
		return "", err
	}
	text := fmt.Sprintf(`l0-retention: 24h
levels: [{interval: 24h}]
snapshot: {interval: 24h, retention: 240h}
dbs:
- path: %s
  monitor-interval: 10ms
  replica: {type: file, path: %s, sync-interval: 10ms}
`, db, archive)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", err
	}
	writer, err := spawn(b.litestream, "replicate", "-config", config)
	if err != nil {
		return "", err
	}
	if err := errors.Join(increase(ctx, db, archive), writer.end()); err != nil {
		return "", fmt.Errorf("litestream replicate: %w: %s", err, writer.log.String())
	}
	return archive, nil
}

// hasLitestream reports whether there is a Litestream, and says what is skipped
// without one.
func (b *bench) hasLitestream(what string) bool {
	_, err := os.Stat(b.litestream)
	if err != nil {
		fmt.Printf("\n%s: skipped, %s is missing: make servers, or name it with -litestream\n", what, b.litestream)
	}
	return err == nil
}

// increase changes rows, and waits each time until Litestream has written a file
// of that.
func increase(ctx context.Context, db, archive string) error {
	if err := moreFiles(ctx, filepath.Join(archive, "ltx", "9"), 0); err != nil {
		return err
	}
	level := filepath.Join(archive, "ltx", "0")
	statement := fmt.Sprintf("UPDATE rows SET name = name || '.' WHERE id IN (SELECT 1 + abs(random()) %% (SELECT max(id) FROM rows) FROM rows LIMIT %d)", litestreamRows)
	for range litestreamIncrements {
		have, err := filepath.Glob(filepath.Join(level, "*.ltx"))
		if err != nil {
			return err
		}
		if err := execute(ctx, db, statement); err != nil {
			return err
		}
		if err := moreFiles(ctx, level, len(have)); err != nil {
			return err
		}
	}
	return nil
}

// moreFiles waits until a directory has more than n files, unfinished ones not
// counted.
func moreFiles(ctx context.Context, dir string, n int) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	for {
		if have, err := filepath.Glob(filepath.Join(dir, "*.ltx")); err != nil || len(have) > n {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
