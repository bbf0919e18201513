package dir

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/internal/tree"
	"github.com/ltxstream/ltxstream/objstore/objstoretest"
)

var at = time.Date(2021, 3, 4, 5, 6, 7, 89_000_000, time.UTC)

func open(t testing.TB, cfg Config) *Store {
	t.Helper()
	s, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStore(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	b := objstoretest.Backend{
		Open: func(t testing.TB, prefix string) objstore.Store {
			return open(t, Config{Path: filepath.Join(base, prefix), Create: true})
		},
		Missing: func(t testing.TB) objstore.Store {
			return open(t, Config{Path: filepath.Join(base, "no", "disk")})
		},
		ListTimestamps: true,
		OneTime:        true,
	}
	if os.Getuid() != 0 {
		b.Denied = func(t testing.TB) objstore.Store {
			path := filepath.Join(base, "denied")
			if err := os.Mkdir(path, 0); err != nil {
				t.Fatal(err)
			}
			return open(t, Config{Path: path})
		}
	}
	objstoretest.Run(t, b)
}

// TestDenied runs that part of the suite as a user whom modes stop.
func TestDenied(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("part of TestStore")
	}
	tmp, err := os.MkdirTemp("", "denied")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(tmp, 0o777), os.WriteFile(filepath.Join(tmp, "test"), binary, 0o755)); err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), filepath.Join(tmp, "test"), "-test.v", "-test.run=^TestStore$/^Denied$")
	c.Dir, c.Env = tmp, append(os.Environ(), "TMPDIR="+tmp)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := c.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestStore/Denied")) {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestRoot: a directory that is missing is an error until somebody makes it.
func TestRoot(t *testing.T) {
	t.Parallel()
	list := func(s *Store) (err error) {
		for _, err = range s.List(t.Context(), "", "") {
		}
		return err
	}
	put := func(s *Store) error {
		_, err := s.Put(t.Context(), "a/x.ltx", strings.NewReader("x"), objstore.PutOptions{Timestamp: at})
		return err
	}
	t.Run("first put", func(t *testing.T) {
		s := open(t, Config{Path: filepath.Join(t.TempDir(), "new")})
		if err := list(s); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "create it") {
			t.Fatalf("list of a missing directory: %v", err)
		}
		if err := errors.Join(put(s), list(s)); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("create", func(t *testing.T) {
		s := open(t, Config{Path: filepath.Join(t.TempDir(), "a", "b", "c"), Create: true})
		if err := errors.Join(list(s), put(s)); err != nil {
			t.Fatal(err)
		}
	})
	for _, create := range []bool{false, true} {
		t.Run(fmt.Sprintf("gone, create %t", create), func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "archive")
			s := open(t, Config{Path: root, Create: create})
			if err := put(s); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(root); err != nil {
				t.Fatal(err)
			}
			_, errStat := s.Stat(t.Context(), "a/x.ltx")
			for call, err := range map[string]error{"put": put(s), "list": list(s), "stat": errStat, "delete": s.Delete(t.Context(), "a/x.ltx")} {
				if err == nil || errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: %v, want an error that is not fs.ErrNotExist", call, err)
				}
			}
			if _, err := os.Stat(root); err == nil {
				t.Error("the directory was made again")
			}
		})
	}
	t.Run("symbolic link", func(t *testing.T) {
		link := filepath.Join(t.TempDir(), "link")
		if err := os.Symlink(t.TempDir(), link); err != nil {
			t.Fatal(err)
		}
		s := open(t, Config{Path: link})
		if err := errors.Join(list(s), put(s)); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, Config{Path: path})
		for call, err := range map[string]error{"put": put(s), "list": list(s)} {
			if err == nil || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %v, want an error that is not fs.ErrNotExist", call, err)
			}
		}
	})
}

func TestParseURL(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]Config{
		"file:///var/ltx":                     {Path: "/var/ltx"},
		"file://localhost/var/ltx":            {Path: "/var/ltx"},
		"file:///var/my%20ltx?create=true":    {Path: "/var/my ltx", Create: true},
		"/var/ltx":                            {Path: "/var/ltx"},
		"relative/dir":                        {Path: "relative/dir"},
		"file://backups/ltx":                  {},
		"file:relative":                       {},
		"file://":                             {},
		"s3://bucket/x":                       {},
		"file:///var/ltx?crate=true":          {},
		"file:///var/ltx?create=sometimes":    {},
		"file:///var/ltx?create=true&other=1": {},
	} {
		t.Run(raw, func(t *testing.T) {
			u, err := url.Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseURL(u)
			if got.Path != want.Path || got.Create != want.Create || (err == nil) != (want.Path != "") {
				t.Fatalf("%+v, %v: want %+v", got, err, want)
			}
		})
	}
	if _, err := New(t.Context(), Config{}); err == nil {
		t.Error("no path: want an error")
	}
}

// hidden are the names below root that are no objects.
func hidden(t *testing.T, root string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestMeta: metadata is that of this object, and goes with it.
func TestMeta(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, Config{Path: root})
	put := func(body string, at time.Time, meta map[string]string) {
		t.Helper()
		if _, err := s.Put(t.Context(), "a/x.ltx", strings.NewReader(body), objstore.PutOptions{Timestamp: at, Meta: meta}); err != nil {
			t.Fatal(err)
		}
		info, err := s.Stat(t.Context(), "a/x.ltx")
		if err != nil || !maps.Equal(info.Meta, meta) {
			t.Fatalf("%+v, %v: want meta %v", info, err, meta)
		}
		want := 0
		if meta != nil {
			want = 1
		}
		if names := hidden(t, root); len(names) != want {
			t.Fatalf("hidden files %q, want %d", names, want)
		}
	}
	one, two := map[string]string{"n": "1"}, map[string]string{"n": "2"}
	put("first", at, one)
	put("other", at, two) // same size and time
	put("third", at, nil)
	put("fourth.", at, one)
	put("fifth", at.Add(time.Hour), two)
	put("sixth", at.Add(time.Hour).Add(time.Millisecond), nil)
	put("seven", at.Add(time.Hour), one)
	if err := s.Delete(t.Context(), "a/x.ltx"); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
		t.Fatalf("left %v, %v", entries, err)
	}
	put("eight", at, one)
	// Behind our back, in the same second: what lies there is not its metadata.
	path := filepath.Join(root, "a", "x.ltx")
	if err := errors.Join(os.WriteFile(path, []byte("ninth"), 0o600), os.Chtimes(path, at, at.Add(5*time.Millisecond))); err != nil {
		t.Fatal(err)
	}
	if info, err := s.Stat(t.Context(), "a/x.ltx"); err != nil || info.Meta != nil {
		t.Fatalf("%+v, %v: want no metadata", info, err)
	}
}

// TestDebris: what killed processes left is invisible, and goes when old.
func TestDebris(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, Config{Path: root})
	put := func(key string) {
		t.Helper()
		if _, err := s.Put(t.Context(), key, strings.NewReader("x"), objstore.PutOptions{Timestamp: at, Meta: map[string]string{"n": "1"}}); err != nil {
			t.Fatal(err)
		}
	}
	put("a/x.ltx")
	old := time.Now().Add(-25 * time.Hour)
	leave := func(name string, mtime time.Time) {
		t.Helper()
		path := filepath.Join(root, filepath.FromSlash(name))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600), os.Chtimes(path, old, mtime)); err != nil {
			t.Fatal(err)
		}
	}
	stamp := fmt.Sprintf("%x", old.Unix())
	fresh := fmt.Sprintf("%x", time.Now().Unix())
	kept := []string{
		".tmp-" + stamp + "-WRITTEN", // for more than a day already
		".tmp-" + fresh + "-STAMPED", // with its object's time
		".tmp-odd", ".foreign", ".y.ltx.1-1.meta",
	}
	leave("a/"+kept[0], time.Now())
	leave("a/"+kept[1], at)
	leave("a/"+kept[2], old)
	leave("a/"+kept[3], old)
	leave("a/"+kept[4], time.Now())
	leave("a/.tmp-"+stamp+"-KILLED", old)
	leave("a/.z.ltx.1-1.meta", old)
	leave("a/.z.ltx.claim", old)
	leave("b/.tmp-"+stamp+"-KILLED", at)
	err := os.Chtimes(filepath.Join(root, "a", fmt.Sprintf(".x.ltx.1-%d.meta", at.Unix())), old, old)
	if err != nil {
		t.Fatal(err)
	}
	var keys []string
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	if len(keys) != 1 || keys[0] != "a/x.ltx" {
		t.Fatalf("listed %q", keys)
	}
	if n := len(hidden(t, root)); n != 10 {
		t.Fatalf("a listing removed something: %d left", n)
	}
	put("c.ltx")
	want := append(kept, fmt.Sprintf(".x.ltx.1-%d.meta", at.Unix()), fmt.Sprintf(".c.ltx.1-%d.meta", at.Unix()))
	slices.Sort(want)
	if got := slices.Sorted(slices.Values(hidden(t, root))); !slices.Equal(got, want) {
		t.Errorf("left %q\nwant %q", got, want)
	}
	if _, err := os.Stat(filepath.Join(root, "b")); err == nil {
		t.Error("the directory of debris alone stays")
	}
}

// TestDirectoriesComeAndGo: deletions remove empty directories while puts want
// them.
func TestDirectoriesComeAndGo(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, Config{Path: root})
	var g errgroup.Group
	for i := range 4 {
		g.Go(func() error {
			for range 100 {
				key := fmt.Sprintf("a/b/%d.ltx", i)
				if _, err := s.Put(t.Context(), key, strings.NewReader("x"), objstore.PutOptions{Timestamp: at, IfAbsent: i%2 == 0}); err != nil {
					return err
				}
				if _, err := s.Stat(t.Context(), key); err != nil {
					return err
				}
				if err := s.Delete(t.Context(), key); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(root); err != nil || len(entries) > 0 {
		t.Fatalf("left %v, %v", entries, err)
	}
}

// TestNested: an object cannot lie below another one, and says so.
func TestNested(t *testing.T) {
	t.Parallel()
	s := open(t, Config{Path: t.TempDir()})
	put := func(key string) error {
		_, err := s.Put(t.Context(), key, strings.NewReader("x"), objstore.PutOptions{Timestamp: at})
		return err
	}
	if err := errors.Join(put("a/x"), put("b/x/y")); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a/x/y", "b/x"} {
		if err := put(key); err == nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, objstore.ErrTransient) {
			t.Errorf("put %s: %v, want a permanent error", key, err)
		}
	}
	if _, err := s.Stat(t.Context(), "a/x/y"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat below an object: %v", err)
	}
	if err := put("a/" + strings.Repeat("k", 201)); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("long segment: %v, want fs.ErrInvalid", err)
	}
}

// TestReaderSaysShort: a source that breaks off with io.ErrUnexpectedEOF is not
// at its end.
func TestReaderSaysShort(t *testing.T) {
	t.Parallel()
	s := open(t, Config{Path: t.TempDir()})
	body := io.MultiReader(strings.NewReader("half"), broken{})
	_, err := s.Put(t.Context(), "a/x.ltx", body, objstore.PutOptions{Timestamp: at})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("%v, want io.ErrUnexpectedEOF", err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestDiskFull(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := syscall.Mount("tmpfs", root, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("no small disk to be had: %v", err)
	}
	defer syscall.Unmount(root, 0)
	s := open(t, Config{Path: root})
	_, err := s.Put(t.Context(), "a/x.ltx", bytes.NewReader(make([]byte, 2<<20)), objstore.PutOptions{Timestamp: at})
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "disk is full") {
		t.Fatalf("%v, want a full disk", err)
	}
	if names := hidden(t, root); len(names) > 0 {
		t.Fatalf("left %q", names)
	}
	if _, err := s.Put(t.Context(), "a/x.ltx", bytes.NewReader(make([]byte, 500_000)), objstore.PutOptions{Timestamp: at}); err != nil {
		t.Fatal(err)
	}
}

// TestListReadsNoMore: directories that hold no key of the listing are not read.
func TestListReadsNoMore(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	s := open(t, Config{Path: root})
	for _, key := range []string{"db/ltx/0001/1", "db/ltx/0001/2", "db/ltx/0002/1", "db/ltx/0003/1"} {
		if _, err := s.Put(t.Context(), key, strings.NewReader("x"), objstore.PutOptions{Timestamp: at}); err != nil {
			t.Fatal(err)
		}
	}
	counted := &countedReads{}
	s = &Store{tree.New(tree.Config{FS: counted, Root: root})}
	for _, c := range []struct {
		prefix, after string
		reads         int
	}{
		{"db/ltx/0002/", "", 1},
		{"db/ltx/0002/1", "", 1},
		{"db/ltx/0002", "", 2},
		{"db/ltx/", "db/ltx/0002/9", 3},
		{"db/ltx/", "db/ltx/0003/", 2},
		{"other/", "", 1},
	} {
		counted.reads = 0
		for _, err := range s.List(t.Context(), c.prefix, c.after) {
			if err != nil {
				t.Fatal(err)
			}
		}
		if counted.reads != c.reads {
			t.Errorf("list %q after %q read %d directories, want %d", c.prefix, c.after, counted.reads, c.reads)
		}
	}
}

type countedReads struct {
	files
	reads int
}

func (c *countedReads) ReadDir(ctx context.Context, name string) ([]fs.DirEntry, error) {
	c.reads++
	return c.files.ReadDir(ctx, name)
}

// TestListMany: a large directory, in order.
func TestListMany(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("makes 10,000 files")
	}
	root := t.TempDir()
	const n = 10_000
	for i := range n {
		f, err := os.Create(filepath.Join(root, fmt.Sprintf("%016x-%016x.ltx", i+1, i+1)))
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	s := open(t, Config{Path: root})
	seen, last := 0, ""
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil || info.Key <= last {
			t.Fatalf("%s after %s: %v", info.Key, last, err)
		}
		seen, last = seen+1, info.Key
	}
	if seen != n {
		t.Fatalf("listed %d, want %d", seen, n)
	}
}
