package litestream_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv"
	"github.com/ltxstream/ltxstream/testenv/litestream"
	"github.com/ltxstream/ltxstream/testenv/oracle"
	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// TestRoundTrip: each version replicates a database and restores it.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, v := range []litestream.Version{litestream.Current, litestream.NoChecksums, litestream.Generations} {
		t.Run(string(v), func(t *testing.T) {
			t.Parallel()
			if out := v.MustRun(t, nil, "version"); strings.TrimSpace(out) == "" {
				t.Error("it has no version")
			}
			dir := t.TempDir()
			path, archive := filepath.Join(dir, "app.db"), filepath.Join(dir, "archive")
			db, err := sqlconn.OpenOne(t.Context(), path, sqlconn.WAL())
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			config := litestream.Config(t, fmt.Sprintf("dbs:\n- path: %s\n  replicas:\n  - type: file\n    path: %s\n    sync-interval: 50ms\n", path, archive))
			p := v.Start(t, nil, "replicate", "-config", config)
			if _, err := db.ExecContext(t.Context(), "CREATE TABLE t AS SELECT 42 AS a"); err != nil {
				t.Fatal(err)
			}
			testenv.Until(t, time.Minute, "the transaction to be restored", func() error {
				out := filepath.Join(t.TempDir(), "out.db")
				if _, err := v.Run(t, nil, "restore", "-o", out, "file://"+archive); err != nil {
					return err
				}
				return oracle.DiffRows(t.Context(), path, out)
			})
			litestream.Stop(t, p)
		})
	}
}
