package sqlconn

import (
	"path/filepath"
	"testing"
)

func TestOptionsReachSQLite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "odd name?&%.db")
	o := WAL()
	o.PageSize, o.AutoVacuum, o.AutoCheckpoint, o.Synchronous = 8192, 2, -1, "full"
	o.MMap, o.CacheKiB, o.Pragmas = 1<<20, 321, []string{"PRAGMA user_version=7"}
	db, err := OpenOne(t.Context(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for pragma, want := range map[string]string{
		"page_size": "8192", "auto_vacuum": "2", "wal_autocheckpoint": "0", "synchronous": "2", "journal_mode": "wal",
		"mmap_size": "1048576", "cache_size": "-321", "user_version": "7", "busy_timeout": "10000",
	} {
		var got string
		if err := db.QueryRow("PRAGMA " + pragma).Scan(&got); err != nil || got != want {
			t.Errorf("%s = %q, %v; want %q", pragma, got, err, want)
		}
	}
	if m, _ := filepath.Glob(path + "*"); len(m) == 0 {
		t.Errorf("the file is not where it was asked for")
	}
}

func TestBusyIsRecognised(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a.db")
	holder, err := OpenOne(t.Context(), path, WAL())
	if err != nil {
		t.Fatal(err)
	}
	defer holder.Close()
	if _, err := holder.Exec("CREATE TABLE t(a); BEGIN IMMEDIATE; INSERT INTO t VALUES(1)"); err != nil {
		t.Fatal(err)
	}
	other, err := OpenOne(t.Context(), path, Options{Mode: "rw"})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Exec("INSERT INTO t VALUES(2)"); !IsBusy(err) {
		t.Fatalf("got %v, want SQLITE_BUSY", err)
	}
	if _, err := other.Exec("INSERT INTO nothing VALUES(2)"); err == nil || IsBusy(err) {
		t.Fatalf("got %v, want an error that is not SQLITE_BUSY", err)
	}
	if r, err := Checkpoint(t.Context(), other, "TRUNCATE"); err != nil || !r.Busy {
		t.Fatalf("checkpoint beside a writer: %+v, %v", r, err)
	}
	if _, err := holder.Exec("COMMIT"); err != nil {
		t.Fatal(err)
	}
	if r, err := Checkpoint(t.Context(), other, "TRUNCATE"); err != nil || r.Busy {
		t.Fatalf("checkpoint of an idle database: %+v, %v", r, err)
	}
}

func TestReadOnlyNeedsTheFile(t *testing.T) {
	t.Parallel()
	if db, err := OpenOne(t.Context(), filepath.Join(t.TempDir(), "none.db"), Options{Mode: "ro"}); err == nil {
		_ = db.Close()
		t.Fatal("opened a file that does not exist")
	}
}
