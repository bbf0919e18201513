//go:build cgo

package wal

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/internal/keeper"
	_ "github.com/mattn/go-sqlite3"
	"go.uber.org/goleak"
)

const childEnv = "LTXSTREAM_WAL_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		os.Exit(childMain(path))
	}
	goleak.VerifyTestMain(m)
}

// reply is what a child says to one line of SQL.
type reply struct {
	Out string // rows: columns joined by |, rows by \n
	Err string
}

// childMain serves one go-sqlite3 connection: a line of SQL in, a reply out.
func childMain(path string) int {
	db, err := sql.Open("sqlite3", "file:"+path+"?_busy_timeout=0")
	if err != nil {
		return 1
	}
	conn, err := db.Conn(context.Background())
	if err != nil {
		return 1
	}
	in, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			conn.Close()
			db.Close()
			return 0
		}
		var r reply
		if r.Out, err = queryText(conn, line); err != nil {
			r.Err = err.Error()
		}
		if out.Encode(r) != nil {
			return 1
		}
	}
}

func queryText(conn *sql.Conn, stmt string) (string, error) {
	rows, err := conn.QueryContext(context.Background(), stmt)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil {
		return "", err
	}
	var lines []string
	for rows.Next() {
		vals, ptrs := make([]sql.NullString, len(cols)), make([]any, len(cols))
		for i := range vals {
			ptrs[i] = &vals[i]
		}
		if err := rows.Scan(ptrs...); err != nil {
			return "", err
		}
		var fields []string
		for _, v := range vals {
			fields = append(fields, v.String)
		}
		lines = append(lines, strings.Join(fields, "|"))
	}
	return strings.Join(lines, "\n"), rows.Err()
}

const pythonChild = `
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
db.text_factory = lambda b: b.decode("utf-8", "replace")
for line in sys.stdin:
    r = {"Out": "", "Err": ""}
    try:
        rows = db.execute(line).fetchall()
        r["Out"] = "\n".join("|".join("" if v is None else str(v) for v in row) for row in rows)
    except sqlite3.Error as e:
        r["Err"] = str(e)
    print(json.dumps(r), flush=True)
db.close()
`

// foreign is a SQLite connection in another process.
type foreign struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

// startForeign connects another process to the database: this program's own
// SQLite, or that of python3, which is usually another version.
func startForeign(t testing.TB, kind, path string) *foreign {
	t.Helper()
	var cmd *exec.Cmd
	switch kind {
	case "go":
		cmd = exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+path, "GORACE=atexit_sleep_ms=0")
	case "python":
		py, err := exec.LookPath("python3")
		if err != nil {
			t.Skip("no python3")
		}
		cmd = exec.Command(py, "-c", pythonChild, path)
	}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	f := &foreign{t: t, cmd: cmd, in: in, out: bufio.NewReaderSize(out, 1<<20)}
	t.Cleanup(f.kill)
	return f
}

func (f *foreign) pid() int { return f.cmd.Process.Pid }

func (f *foreign) send(stmt string) {
	if _, err := io.WriteString(f.in, strings.ReplaceAll(stmt, "\n", " ")+"\n"); err != nil {
		f.t.Errorf("child %d: %v", f.pid(), err)
	}
}

func (f *foreign) receive() (string, error) {
	line, err := f.out.ReadString('\n')
	if err != nil {
		return "", err
	}
	var r reply
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		return "", err
	}
	if r.Err != "" {
		return r.Out, errors.New(r.Err)
	}
	return r.Out, nil
}

func (f *foreign) try(stmt string) (string, error) { f.send(stmt); return f.receive() }

func (f *foreign) exec(stmt string) string {
	f.t.Helper()
	out, err := f.try(stmt)
	if err != nil {
		f.t.Fatalf("child %d: %s: %v", f.pid(), stmt, err)
	}
	return out
}

func (f *foreign) intact() {
	f.t.Helper()
	if got := f.exec("PRAGMA integrity_check"); got != "ok" {
		f.t.Fatalf("integrity_check: %s", got)
	}
}

// insert adds n rows of size random bytes to t in one transaction.
func (f *foreign) insert(n, size int) {
	f.t.Helper()
	f.exec(fmt.Sprintf("WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM c WHERE i<%d) INSERT INTO t(b) SELECT randomblob(%d) FROM c", n, size))
}

// close ends the connection as an application does: SQLite's own close.
func (f *foreign) close() {
	f.in.Close()
	f.cmd.Wait()
}

func (f *foreign) kill() {
	if f.cmd.ProcessState == nil {
		f.cmd.Process.Kill()
		f.cmd.Wait()
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newDatabase makes a database in WAL mode with a table t, held open by a
// foreign connection that checkpoints only when told to.
func newDatabase(t testing.TB, kind string, pageSize int) (string, *foreign) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	f := startForeign(t, kind, path)
	f.exec(fmt.Sprintf("PRAGMA page_size=%d", pageSize))
	f.exec("PRAGMA journal_mode=WAL")
	f.exec("PRAGMA wal_autocheckpoint=0")
	f.exec("CREATE TABLE t(id INTEGER PRIMARY KEY, b BLOB)")
	return path, f
}

// openDB opens the database as a role does: keeper first.
func openDB(t testing.TB, path string) *DB {
	t.Helper()
	k, err := keeper.Open(context.Background(), path)
	must(t, err)
	t.Cleanup(func() { must(t, k.Close()) })
	d, err := Open(path)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

func header(t testing.TB, d *DB) Header {
	t.Helper()
	h, err := d.Header()
	must(t, err)
	return h
}

// frame is one frame of a decoded -wal file.
type frame struct {
	FrameHeader
	page []byte
}

// decodeWAL returns the frames of a -wal file up to its last commit, and the
// chain there.
func decodeWAL(b []byte) (FileHeader, []frame, Chain) {
	h, sum, err := ParseFileHeader(b)
	if err != nil {
		return FileHeader{}, nil, Chain{}
	}
	c := StartChain(h, sum)
	last := c
	var all []frame
	for range FramesIn(int64(len(b)), h.PageSize) {
		off := FrameOffset(c.Frame+1, h.PageSize)
		fb := b[off : off+int64(c.FrameSize())]
		fh, err := c.Next(fb)
		if err != nil {
			break
		}
		all = append(all, frame{fh, fb[FrameHeaderSize:]})
		if fh.Commit != 0 {
			last = c
		}
	}
	return h, all[:last.Frame], last
}

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := exec.Command("cat", path).Output() // in another process: closing it here would drop SQLite's locks
	must(t, err)
	return b
}

// lockAll takes the given locks for the test's duration or until undone.
func lockAll(t testing.TB, d *DB, ls ...Lock) (undo func()) {
	t.Helper()
	for _, l := range ls {
		must(t, d.LockWithin(context.Background(), l, 10*time.Second))
	}
	return func() {
		for _, l := range ls {
			must(t, d.Unlock(l))
		}
	}
}

// within waits for cond, at most 10 s.
func within(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("timed out waiting for %s", what)
		case <-time.After(time.Millisecond):
		}
	}
}

var pageSizes = []int{512, 1024, 2048, 4096, 8192, 16384, 32768, 65536}

// kinds are the SQLite versions that tests meet.
func kinds(t *testing.T, f func(t *testing.T, kind string)) {
	for _, kind := range []string{"go", "python"} {
		t.Run(kind, func(t *testing.T) { t.Parallel(); f(t, kind) })
	}
}
