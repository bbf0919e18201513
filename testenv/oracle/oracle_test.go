package oracle

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

const sample = `
CREATE TABLE t(a INTEGER PRIMARY KEY, b DATETIME, c BLOB);
CREATE TABLE w(k TEXT PRIMARY KEY, v) WITHOUT ROWID;
CREATE TABLE auto(id INTEGER PRIMARY KEY AUTOINCREMENT, "odd ""name" TEXT);
CREATE TABLE hidden(rowid TEXT, _rowid_ TEXT);
CREATE INDEX tb ON t(b);
CREATE VIEW vw AS SELECT a FROM t;
CREATE VIRTUAL TABLE box USING rtree(id, x0, x1);
INSERT INTO t SELECT value, '2024-01-01', randomblob(400) FROM generate;
INSERT INTO w VALUES('a', 1), ('b', 2.5), ('c', NULL), ('d', x'00ff'), ('e', 'text');
INSERT INTO auto("odd ""name") VALUES('x'), ('y');
INSERT INTO hidden VALUES('p', 'q');
INSERT INTO box VALUES(1, 0.0, 1.0);
DELETE FROM t WHERE a BETWEEN 20 AND 40;
`

// makePair returns the paths of two databases with the same bytes, not in use, checkpointed.
func makePair(t *testing.T) (a, b string) {
	t.Helper()
	dir := t.TempDir()
	a, b = filepath.Join(dir, "a.db"), filepath.Join(dir, "b.db")
	exec(t, a, strings.Replace(sample, "generate", "(WITH RECURSIVE n(value) AS (VALUES(1) UNION ALL SELECT value+1 FROM n WHERE value<60) SELECT value FROM n)", 1))
	data, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func open(t *testing.T, path string) *sql.DB {
	t.Helper()
	db, err := sqlconn.OpenOne(t.Context(), path, sqlconn.WAL())
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func exec(t *testing.T, path, stmt string) {
	t.Helper()
	db := open(t, path)
	defer db.Close()
	if _, err := db.Exec(stmt); err != nil {
		t.Fatalf("%s: %v", stmt, err)
	}
}

func TestEqualDatabases(t *testing.T) {
	t.Parallel()
	a, b := makePair(t)
	if err := Diff(t.Context(), a, b); err != nil {
		t.Fatal(err)
	}
	if err := DiffRows(t.Context(), a, b); err != nil {
		t.Fatal(err)
	}
}

func TestDifferencesAreNamed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ change, what, at string }{
		"missing row":            {"DELETE FROM t WHERE a = 7", "rows", "table t row 7"},
		"extra row":              {"INSERT INTO t VALUES(1000, NULL, NULL)", "rows", "table t row 40"},
		"missing row, no rowid":  {"DELETE FROM w WHERE k = 'c'", "rows", "table w row 3"},
		"changed type":           {"UPDATE w SET v = '1' WHERE k = 'a'", "rows", "table w row 1"},
		"integer to real":        {"UPDATE w SET v = 1.0 WHERE k = 'a'", "rows", "table w row 1"},
		"integer of real's bits": {"UPDATE w SET v = 4612811918334230528 WHERE k = 'b'", "rows", "table w row 2"},
		"text to blob":           {"UPDATE w SET v = x'74657874' WHERE k = 'e'", "rows", "table w row 5"},
		"declared date":          {"UPDATE t SET b = 1704067200 WHERE a = 1", "rows", "table t row 1"},
		"one bit of a blob":      {"UPDATE t SET c = substr(c, 1, 399) || x'00' WHERE a = 3", "rows", "table t row 3"},
		"rowid only":             {"UPDATE hidden SET oid = 9", "rows", "table hidden row 1"},
		"sequence":               {"UPDATE sqlite_sequence SET seq = 9", "rows", "table sqlite_sequence row 1"},
		"virtual table":          {"UPDATE box SET x1 = 2.0", "rows", "table box_node row 1"},
		"odd column":             {`UPDATE auto SET "odd ""name" = 'z' WHERE id = 2`, "rows", "table auto row 2"},
		"changed schema":         {"CREATE INDEX tc ON t(c)", "schema", "object"},
		"changed view":           {"DROP VIEW vw; CREATE VIEW vw AS SELECT b FROM t", "schema", "object"},
		"user_version":           {"PRAGMA user_version = 3", "header", "user_version"},
		"application_id":         {"PRAGMA application_id = 3", "header", "application_id"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b := makePair(t)
			exec(t, b, c.change)
			for _, diff := range []func(context.Context, string, string) error{Diff, DiffRows} {
				d, ok := errors.AsType[*Difference](diff(t.Context(), a, b))
				if !ok || d.What != c.what || !strings.Contains(d.At, c.at) {
					t.Errorf("got %v, want %s at %s", d, c.what, c.at)
				}
			}
			if logical(t, a) == logical(t, b) {
				t.Error("the logical hashes are equal")
			}
		})
	}
}

func logical(t *testing.T, path string) string {
	t.Helper()
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	h, err := s.Logical(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A page that a DELETE freed is part of the file: Diff compares it, DiffRows does not.
func TestFreePagesCountForDiffOnly(t *testing.T) {
	t.Parallel()
	a, b := makePair(t)
	s, err := Open(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	image, err := s.Image(t.Context())
	header := s.Header
	_ = s.Close()
	if err != nil || header.FreePages < 2 {
		t.Fatalf("%d free pages, %v", header.FreePages, err)
	}
	trunk := int(image[32])<<24 | int(image[33])<<16 | int(image[34])<<8 | int(image[35])
	leaf := image[(trunk-1)*int(header.PageSize)+8:]
	pgno := int(leaf[0])<<24 | int(leaf[1])<<16 | int(leaf[2])<<8 | int(leaf[3])
	flip(t, b, int64(pgno-1)*int64(header.PageSize)+100)
	d, ok := errors.AsType[*Difference](Diff(t.Context(), a, b))
	if !ok || d.What != "pages" || !strings.Contains(d.At, "byte 100") {
		t.Errorf("Diff: %v", d)
	}
	if err := DiffRows(t.Context(), a, b); err != nil {
		t.Errorf("DiffRows: %v", err)
	}
}

// flip changes one bit of a file that nobody has open.
func flip(t *testing.T, path string, off int64) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[off] ^= 1
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestEveryFlippedByteIsFound(t *testing.T) {
	t.Parallel()
	a, b := makePair(t)
	info, err := os.Stat(b)
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for off := int64(200); off < info.Size(); off += 997 {
		flip(t, b, off)
		if err := Diff(t.Context(), a, b); err == nil {
			t.Errorf("byte %d: not found", off)
		}
		flip(t, b, off)
		found++
	}
	if err := Diff(t.Context(), a, b); err != nil || found < 20 {
		t.Fatalf("after %d flips and back: %v", found, err)
	}
}

// Rows alone do not show that an index is damaged, on either side; integrity_check does.
func TestIntegrityIsChecked(t *testing.T) {
	t.Parallel()
	for damaged := range 2 {
		a, b := makePair(t)
		s, err := Open(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		size, root := int64(s.Header.PageSize), int64(0)
		for _, o := range s.Schema {
			if o.Name == "tb" {
				root = o.Root
			}
		}
		_ = s.Close()
		flip(t, []string{a, b}[damaged], root*size-1) // the end of the page: the rowid in the first key
		if e, ok := errors.AsType[*IntegrityError](DiffRows(t.Context(), a, b)); !ok || e.Path != []string{a, b}[damaged] {
			t.Errorf("damage in file %d: %v", damaged, e)
		}
		flip(t, []string{b, a}[damaged], root*size-1)
		if _, ok := errors.AsType[*IntegrityError](Diff(t.Context(), a, b)); !ok {
			t.Error("equal damage in both files was not found")
		}
	}
}

func TestRebuiltFileHasEqualRows(t *testing.T) {
	t.Parallel()
	a, _ := makePair(t)
	c := filepath.Join(t.TempDir(), "c.db")
	exec(t, a, "VACUUM INTO '"+c+"'")
	if err := DiffRows(t.Context(), a, c); err != nil {
		t.Errorf("DiffRows: %v", err)
	}
	if err := Diff(t.Context(), a, c); err == nil {
		t.Error("Diff finds the files equal")
	}
	if logical(t, a) != logical(t, c) {
		t.Error("the logical hashes differ")
	}
}

// What is in the WAL counts, a later commit does not, and reading leaves the WAL in place.
func TestSnapshotReadsTheWALAndStaysPut(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	db := open(t, path)
	defer db.Close()
	if _, err := db.Exec("CREATE TABLE t(a); INSERT INTO t VALUES(1)"); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, before, err := s.Pages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec("INSERT INTO t VALUES(2)"); err != nil {
		t.Fatal(err)
	}
	_, after, err := s.Pages(t.Context())
	if err != nil || before != after || after&ltx.ChecksumFlag == 0 {
		t.Fatalf("checksum %s, then %s, %v", before, after, err)
	}
	if wal, err := os.Stat(path + "-wal"); err != nil || wal.Size() == 0 {
		t.Fatalf("the wal is gone: %v", err)
	}
}

func TestLastCloseLeavesTheWAL(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	db := open(t, path)
	if _, err := db.Exec("CREATE TABLE t(a); INSERT INTO t VALUES(1)"); err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "b.db") // as a killed process leaves it: a WAL and no connection
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + suffix)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(copied+suffix, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Diff(t.Context(), path, copied); err != nil {
		t.Error(err)
	}
	if wal, err := os.Stat(copied + "-wal"); err != nil || wal.Size() == 0 {
		t.Errorf("the oracle removed the wal: %v", err)
	}
	_ = db.Close()
}

// The checksum must be the one that ltx computes over the file.
func TestChecksumIsThatOfLTX(t *testing.T) {
	t.Parallel()
	for _, size := range []int{512, 1024, 4096, 65536} {
		path := filepath.Join(t.TempDir(), "a.db")
		db, err := sqlconn.OpenOne(t.Context(), path, sqlconn.Options{Journal: "wal", PageSize: size})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Exec("CREATE TABLE t(a); INSERT INTO t VALUES(randomblob(200000))"); err != nil {
			t.Fatal(err)
		}
		_ = db.Close() // the last close checkpoints: the file has it all
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := ltx.ChecksumReader(strings.NewReader(string(data)), size)
		if err != nil {
			t.Fatal(err)
		}
		s, err := Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		pages, got, err := s.Pages(t.Context())
		_ = s.Close()
		if err != nil || got != want || len(pages) != len(data)/size {
			t.Errorf("page size %d: %s over %d pages, want %s: %v", size, got, len(pages), want, err)
		}
	}
}

func TestEmptyDatabase(t *testing.T) {
	t.Parallel()
	a, b := filepath.Join(t.TempDir(), "a.db"), filepath.Join(t.TempDir(), "b.db")
	exec(t, a, "SELECT 1")
	exec(t, b, "SELECT 1")
	if err := Diff(t.Context(), a, b); err != nil {
		t.Fatal(err)
	}
}
