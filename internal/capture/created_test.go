package capture

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv/sqlconn"
)

// says waits for a look at the file, quiet by then, of which the report is text.
func (c *capturing) says(path, text string) {
	c.t.Helper()
	await(c.t, text, func() bool {
		rep, err := c.r.Last()
		must(c.t, err)
		fi, err := os.Stat(path)
		quiet := err != nil || time.Since(fi.ModTime()) > 2*settleQuiet
		return quiet && strings.Contains(rep.Stats.Error, text)
	})
}

// A database file is removed, and created again in pieces, with pauses: it is
// followed once it is whole, and nothing is written to it before. That it has the
// number of the file before, which file systems use again, must not matter.
func TestFileIsCreatedSlowly(t *testing.T) {
	for _, pageSize := range []int{4096, 1024} {
		t.Run(fmt.Sprint("page size ", pageSize), func(t *testing.T) {
			t.Parallel()
			a := newApp(t, sqlconn.Options{}, 1)
			c := captureIn(t, captureSpec{Path: a.path})
			a.update(30)
			c.caughtUp()
			a.close()
			a.awaitEmpty()
			before, err := c.r.Last()
			must(t, err)
			b, err := os.ReadFile(other(t, pageSize))
			must(t, err, os.Remove(a.path), os.RemoveAll(a.path+"-wal"), os.RemoveAll(a.path+"-shm"))
			c.says(a.path, "does not exist")
			f, err := os.Create(a.path)
			must(t, err)
			c.says(a.path, "it is empty")
			for _, part := range [][]byte{b[:50], b[50 : len(b)/2]} {
				_, err := f.Write(part)
				must(t, err)
				c.says(a.path, "it is shorter")
			}
			got, err := os.ReadFile(a.path)
			must(t, err)
			if !bytes.Equal(got, b[:len(b)/2]) {
				t.Error("the half file was changed")
			}
			_, err = f.Write(b[len(b)/2:])
			must(t, err, f.Close())
			await(t, "the replacement is noticed", func() bool {
				rep, err := c.r.Last()
				must(t, err)
				return rep.Stats.Comparisons > before.Stats.Comparisons
			})
			a.open()
			a.update(10)
			c.caughtUp()
			c.stop()
			r := run(t, Config{Path: a.path}, &shadow{})
			r.settle()
			r.equal(a.path)
			if want := 1 + btoi(pageSize != 4096); r.shadow.fulls != want {
				t.Errorf("%d full files, want %d", r.shadow.fulls, want)
			}
		})
	}
}
