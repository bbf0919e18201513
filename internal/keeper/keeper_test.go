package keeper

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

const (
	sqlEnv  = "LTXSTREAM_KEEPER_SQL"  // child: a SQLite connection on this path
	openEnv = "LTXSTREAM_KEEPER_OPEN" // child: calls Open on this path
)

func TestMain(m *testing.M) {
	if path := os.Getenv(sqlEnv); path != "" {
		os.Exit(serveSQL(path))
	}
	if path := os.Getenv(openEnv); path != "" {
		os.Exit(tryOpen(path))
	}
	goleak.VerifyTestMain(m)
}

// serveSQL answers each line of SQL with its first column, or its error.
func serveSQL(path string) int {
	db, err := sql.Open("sqlite3", "file:"+path+"?_busy_timeout=0")
	if err != nil {
		return 1
	}
	conn, err := db.Conn(context.Background())
	if err != nil {
		return 1
	}
	in, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for in.Scan() {
		got, err := firstColumn(conn, in.Text())
		if err != nil {
			got = "error: " + err.Error()
		}
		if out.Encode(got) != nil {
			return 1
		}
	}
	conn.Close()
	db.Close()
	return 0
}

func firstColumn(conn *sql.Conn, stmt string) (string, error) {
	rows, err := conn.QueryContext(context.Background(), stmt)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	cols, err := rows.Columns()
	if err != nil || !rows.Next() {
		return "", errors.Join(err, rows.Err())
	}
	var first sql.NullString
	dest := make([]any, len(cols))
	for i := range dest {
		dest[i] = new(any)
	}
	dest[0] = &first
	err = rows.Scan(dest...)
	return first.String, err
}

// tryOpen is Open in a process of another user: 0 opened, 3 ErrReadOnly.
func tryOpen(path string) int {
	k, err := Open(context.Background(), path)
	fmt.Println(err)
	switch {
	case err == nil:
		k.Close()
		return 0
	case errors.Is(err, ErrReadOnly):
		return 3
	}
	return 1
}

// app is an application: a SQLite connection in another process.
type app struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func startApp(t *testing.T, path string) *app {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), sqlEnv+"="+path, "GORACE=atexit_sleep_ms=0")
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	a := &app{t, cmd, in, json.NewDecoder(out)}
	t.Cleanup(a.close)
	return a
}

// exec returns the first column of the first row, or "error: …".
func (a *app) exec(stmt string) (s string) {
	a.t.Helper()
	_, err := io.WriteString(a.in, stmt+"\n")
	must(a.t, err)
	must(a.t, a.out.Decode(&s))
	return s
}

func (a *app) close() {
	a.in.Close()
	a.cmd.Wait()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newDatabase(t *testing.T, mode string) (string, *app) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "app.db")
	a := startApp(t, path)
	if got := a.exec("PRAGMA journal_mode=" + mode); got != mode {
		t.Fatal(got)
	}
	a.exec("CREATE TABLE t(a)")
	a.exec("INSERT INTO t VALUES(1)")
	return path, a
}

func open(t *testing.T, path string) *Keeper {
	t.Helper()
	k, err := Open(t.Context(), path)
	must(t, err)
	return k
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		must(t, os.WriteFile(p, b, 0o644))
		return p
	}
	random := make([]byte, 8192)
	for i := range random {
		random[i] = byte(rand.Uint32())
	}
	fifo := filepath.Join(dir, "fifo")
	must(t, syscall.Mkfifo(fifo, 0o644))
	for name, c := range map[string]struct {
		path string
		want error
	}{
		"absent":             {filepath.Join(dir, "absent.db"), fs.ErrNotExist},
		"directory":          {dir, ErrNotDatabase},
		"fifo":               {fifo, ErrNotDatabase},
		"text":               {file("a.txt", []byte(strings.Repeat("hello world\n", 1000))), ErrNotDatabase},
		"two bytes":          {file("two", []byte("xy")), ErrNotDatabase}, // one byte is empty to SQLite
		"encrypted header":   {file("enc.db", random), ErrNotDatabase},
		"memory":             {":memory:", fs.ErrNotExist},
		"no name, temporary": {"", fs.ErrNotExist},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := Open(t.Context(), c.path)
			if !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if k != nil {
				t.Fatal("a keeper beside the error")
			}
			if _, err := os.Stat(c.path + "-wal"); err == nil {
				t.Fatal("left a -wal file behind")
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "absent.db")); err == nil {
		t.Fatal("created the absent file")
	}
}

func TestOpenSwitchesToWAL(t *testing.T) {
	for _, mode := range []string{"delete", "truncate", "persist"} {
		path, a := newDatabase(t, mode)
		k := open(t, path)
		if !k.Switched() {
			t.Errorf("%s: not said to be switched", mode)
		}
		if got := a.exec("SELECT count(*) FROM t"); got != "1" {
			t.Errorf("%s: the application reads %q", mode, got)
		}
		if got := a.exec("PRAGMA journal_mode"); got != "wal" {
			t.Errorf("%s: the application sees %q", mode, got)
		}
		a.exec("INSERT INTO t VALUES(2)")
		must(t, k.Close())
	}
	path, _ := newDatabase(t, "wal")
	k := open(t, path)
	if k.Switched() {
		t.Error("wal: said to be switched")
	}
	must(t, k.Close())
}

func TestOpenOfAnEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "empty.db")
	must(t, os.WriteFile(path, nil, 0o644))
	k := open(t, path)
	defer k.Close()
	a := startApp(t, path)
	if got := a.exec("PRAGMA journal_mode"); got != "wal" || !k.Switched() {
		t.Fatalf("journal mode %q, switched %v", got, k.Switched())
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if _, err := os.Stat(path + suffix); err != nil {
			t.Error(err)
		}
	}
	a.exec("CREATE TABLE t(a)")
	if got := a.exec("PRAGMA integrity_check"); got != "ok" {
		t.Fatal(got)
	}
}

func TestOpenOfOddNames(t *testing.T) {
	for _, name := range []string{"a b.db", "50%.db", "x?mode=ro.db", "h#1.db", "ü.db"} {
		path := filepath.Join(t.TempDir(), name)
		must(t, os.WriteFile(path, nil, 0o644))
		k := open(t, path)
		if _, err := os.Stat(path + "-wal"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		must(t, k.Close())
	}
}

func TestOpenOfAnExclusiveDatabase(t *testing.T) {
	t.Parallel() // waits for the busy timeout
	path, a := newDatabase(t, "wal")
	a.exec("PRAGMA locking_mode=EXCLUSIVE")
	if got := a.exec("INSERT INTO t VALUES(2)"); got != "" {
		t.Fatal(got)
	}
	if _, err := Open(t.Context(), path); !errors.Is(err, ErrExclusive) {
		t.Fatalf("%v, want %v", err, ErrExclusive)
	}
}

func TestOpenDuringARollbackTransaction(t *testing.T) {
	t.Parallel() // waits for the busy timeout
	path, a := newDatabase(t, "delete")
	a.exec("BEGIN EXCLUSIVE")
	a.exec("INSERT INTO t VALUES(2)")
	if _, err := Open(t.Context(), path); !errors.Is(err, ErrExclusive) {
		t.Fatalf("%v, want %v", err, ErrExclusive)
	}
	a.exec("COMMIT")
	k := open(t, path)
	must(t, k.Close())
}

// An application that commits in rollback-journal mode, again and again, does
// not keep the database from being switched.
func TestOpenWhileARollbackApplicationCommits(t *testing.T) {
	t.Parallel()
	for range 10 {
		path, a := newDatabase(t, "delete")
		a.exec("PRAGMA busy_timeout=10000")
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					a.exec("INSERT INTO t VALUES(2)")
				}
			}
		}()
		k, err := Open(t.Context(), path)
		close(stop)
		<-stopped
		must(t, err)
		a.exec("SELECT count(*) FROM t") // by which it notices
		if got := a.exec("PRAGMA journal_mode"); got != "wal" || !k.Switched() {
			t.Errorf("journal mode %q, switched %v", got, k.Switched())
		}
		must(t, k.Close())
	}
}

// openAsNobody runs Open where the superuser's rights do not help.
func openAsNobody(t *testing.T, path string) (code int, out string) {
	t.Helper()
	exe := filepath.Join(filepath.Dir(path), "..", "child")
	b, err := os.ReadFile(os.Args[0])
	must(t, err)
	must(t, os.WriteFile(exe, b, 0o755))
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), openEnv+"="+path, "GORACE=atexit_sleep_ms=0")
	if os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	got, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Skipf("cannot run as another user: %v", err)
	}
	return cmd.ProcessState.ExitCode(), string(got)
}

// foreignDir returns a database in a directory that only its mode protects.
func foreignDir(t *testing.T, mode string, keep bool) (dir, path string) {
	t.Helper()
	root := t.TempDir()
	must(t, os.Chmod(filepath.Dir(root), 0o755))
	dir = filepath.Join(root, "d")
	must(t, os.Mkdir(dir, 0o777))
	must(t, os.Chmod(dir, 0o777))
	path = filepath.Join(dir, "app.db")
	a := startApp(t, path)
	a.exec("PRAGMA journal_mode=" + mode)
	a.exec("CREATE TABLE t(a)")
	if !keep {
		a.close()
	}
	t.Cleanup(func() { os.Chmod(dir, 0o777) })
	return dir, path
}

func TestOpenOfWhatCannotBeWritten(t *testing.T) {
	for _, mode := range []string{"wal", "delete"} {
		for _, keep := range []bool{false, true} {
			name := fmt.Sprintf("%s, open elsewhere %v", mode, keep)
			t.Run(name+", control", func(t *testing.T) {
				_, path := foreignDir(t, mode, keep)
				for _, s := range []string{"", "-wal", "-shm"} {
					os.Chmod(path+s, 0o666)
				}
				if code, out := openAsNobody(t, path); code != 0 {
					t.Fatalf("exit %d: %s", code, out)
				}
			})
			t.Run(name+", file", func(t *testing.T) {
				_, path := foreignDir(t, mode, keep)
				must(t, os.Chmod(path, 0o444))
				if code, out := openAsNobody(t, path); code != 3 {
					t.Fatalf("exit %d: %s", code, out)
				}
			})
			t.Run(name+", directory", func(t *testing.T) {
				dir, path := foreignDir(t, mode, keep)
				must(t, os.Chmod(path, 0o666))
				must(t, os.Chmod(dir, 0o555))
				if code, out := openAsNobody(t, path); code != 3 {
					t.Fatalf("exit %d: %s", code, out)
				}
			})
		}
	}
}

func TestKeeperKeepsTheWAL(t *testing.T) {
	path, a := newDatabase(t, "wal")
	k := open(t, path)
	a.exec("INSERT INTO t VALUES(2)")
	if got := a.exec("PRAGMA journal_mode=DELETE"); !strings.Contains(got, "locked") && got != "wal" {
		t.Fatalf("the application left WAL mode: %q", got)
	}
	a.close() // the application's last
	for _, suffix := range []string{"-wal", "-shm"} {
		if fi, err := os.Stat(path + suffix); err != nil || fi.Size() == 0 {
			t.Fatalf("the last close took %s: %v", suffix, err)
		}
	}
	must(t, k.Close())
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("control: without a keeper the last close removes the WAL: %v", err)
	}
}

func TestKeeperHoldsNoTransaction(t *testing.T) {
	path, a := newDatabase(t, "wal")
	k := open(t, path)
	defer k.Close()
	for range 3 {
		a.exec("INSERT INTO t VALUES(2)")
		if got := a.exec("PRAGMA wal_checkpoint(TRUNCATE)"); got != "0" {
			t.Fatalf("TRUNCATE: busy %s", got)
		}
	}
	if got := a.exec("PRAGMA locking_mode=EXCLUSIVE"); got != "exclusive" {
		t.Fatal(got)
	}
	if got := a.exec("INSERT INTO t VALUES(3)"); got != "" {
		t.Logf("exclusive mode beside the keeper: %s", got)
	}
}

func TestOpenWithACancelledContext(t *testing.T) {
	path, _ := newDatabase(t, "wal")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, path); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestPersistWAL(t *testing.T) {
	path, a := newDatabase(t, "wal")
	k := open(t, path)
	must(t, k.PersistWAL())
	a.exec("INSERT INTO t VALUES(2)")
	a.close()
	must(t, k.Close())
	if fi, err := os.Stat(path + "-wal"); err != nil || fi.Size() == 0 {
		t.Fatalf("the WAL is gone: %v", err)
	}
	a = startApp(t, path)
	if got := a.exec("SELECT count(*) FROM t"); got != "2" {
		t.Fatal(got)
	}
}

func TestTouchRecoversTheIndex(t *testing.T) {
	path, a := newDatabase(t, "wal")
	k := open(t, path)
	defer k.Close()
	must(t, k.Touch(t.Context()))
	tear := exec.Command("dd", "if=/dev/zero", "of="+path+"-shm", "bs=1", "count=48", "conv=notrunc") // closing it here would drop locks
	if out, err := tear.CombinedOutput(); err != nil {
		t.Skipf("dd: %v: %s", err, out)
	}
	must(t, k.Touch(t.Context()))
	b, err := exec.Command("cat", path+"-shm").Output()
	must(t, err)
	if string(b[:48]) != string(b[48:96]) || b[12] == 0 {
		t.Fatalf("the index is as it was torn: %x", b[:96])
	}
	if got := a.exec("PRAGMA integrity_check"); got != "ok" {
		t.Fatal(got)
	}
}
