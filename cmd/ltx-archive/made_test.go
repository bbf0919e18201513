package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/objstore/dir"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/testenv/history"
)

// made is an archive in a directory, made of a history without a stream.
type made struct {
	h   *history.History
	dir string
	a   *levels.Archive
}

const dbName = "app"

func newMade(t testing.TB, cfg history.Config, n int) *made {
	t.Helper()
	m := &made{h: history.New(t, cfg), dir: filepath.Join(t.TempDir(), "archive")}
	m.h.Grow(t, n)
	store, err := dir.New(t.Context(), dir.Config{Path: m.dir, Create: true})
	if err != nil {
		t.Fatal(err)
	}
	m.a = levels.New(store, levels.Decimal)
	return m
}

// put archives a range at a level, and returns the path of the file.
func (m *made) put(t testing.TB, level levels.Level, lo, hi ltx.TXID) string {
	t.Helper()
	return m.putWith(t, compactor.MergeOptions{}, level, lo, hi)
}

func (m *made) putWith(t testing.TB, o compactor.MergeOptions, level levels.Level, lo, hi ltx.TXID) string {
	t.Helper()
	f, _, err := compactor.Store(t.Context(), compactor.StoreConfig{Archive: m.a, DB: dbName, MergeOptions: o}, level, m.inputs(lo, hi), 0)
	if err != nil {
		t.Fatal(err)
	}
	return m.path(f)
}

func (m *made) inputs(lo, hi ltx.TXID) (inputs []compactor.Input) {
	for txid := lo; txid <= hi; txid++ {
		inputs = append(inputs, compactor.Input{Name: fmt.Sprint(txid), Open: func(context.Context) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(m.h.File(txid))), nil
		}})
	}
	return inputs
}

// putAsLitestream archives a range without any checksum of the database.
func (m *made) putAsLitestream(t testing.TB, level levels.Level, lo, hi ltx.TXID) {
	t.Helper()
	var buf bytes.Buffer
	merged, err := compactor.Merge(t.Context(), &buf, m.inputs(lo, hi), compactor.MergeOptions{NoChecksums: true})
	if err == nil {
		_, err = m.a.Put(t.Context(), dbName, levels.File{Level: level, Min: lo, Max: hi, Timestamp: merged.Timestamp()}, &buf, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (m *made) path(f levels.File) string { return filepath.Join(m.dir, m.a.Key(dbName, f)) }

// first archives each transaction of a range by itself at level 1.
func (m *made) first(t testing.TB, lo, hi ltx.TXID) {
	t.Helper()
	for txid := lo; txid <= hi; txid++ {
		m.put(t, levels.First, txid, txid)
	}
}

// files are the keys of everything in the directory.
func (m *made) files(t testing.TB) (keys []string) {
	t.Helper()
	for info, err := range m.a.Store().List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	return keys
}

// alone fails the test when there is anything beside a file.
func alone(t testing.TB, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 || entries[0].Name() != filepath.Base(path) {
		t.Errorf("beside %s: %v, %v", path, entries, err)
	}
}

func empty(t testing.TB, dir string) {
	t.Helper()
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func decode[T any](t testing.TB, o outcome) (v T) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(o.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v in %s", err, o.stdout)
	}
	return v
}

func stamp(t time.Time) string { return "--timestamp=" + t.Format("2006-01-02T15:04:05.000Z07:00") }

// flip changes one bit of a file and leaves its times as they are.
func flip(t testing.TB, path string, at int64) {
	t.Helper()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0x10
	if err := errors.Join(os.WriteFile(path, b, 0o600), os.Chtimes(path, st.ModTime(), st.ModTime())); err != nil {
		t.Fatal(err)
	}
}
