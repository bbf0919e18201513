package replica

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/mattn/go-sqlite3"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/pagesum"
)

// primary is a SQLite database whose every state becomes an LTX file.
type primary struct {
	t     testing.TB
	db    *sql.DB
	conn  *sql.Conn
	size  uint32
	image []byte
	sums  []ltx.Checksum // of its pages
	pos   ltx.Pos
	bulk  int // rows of a large transaction
}

// file is one LTX file of a chain.
type file struct {
	data  []byte
	pos   ltx.Pos // after it
	image []byte  // the database after it
}

func (f file) section() *io.SectionReader {
	return io.NewSectionReader(bytes.NewReader(f.data), 0, int64(len(f.data)))
}

func newPrimary(t testing.TB, pageSize uint32, pragmas ...string) *primary {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+filepath.Join(t.TempDir(), "primary.db"))
	if err != nil {
		t.Fatal(err)
	}
	p := &primary{t: t, db: db, size: pageSize, bulk: 400}
	if p.conn, err = db.Conn(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.conn.Close(); db.Close() })
	p.exec(fmt.Sprintf("PRAGMA page_size=%d", pageSize))
	for _, s := range pragmas {
		p.exec(s)
	}
	p.exec("PRAGMA journal_mode=WAL")
	p.exec("PRAGMA synchronous=OFF")
	return p
}

func (p *primary) exec(stmt string, args ...any) {
	p.t.Helper()
	if _, err := p.conn.ExecContext(context.Background(), stmt, args...); err != nil {
		p.t.Fatalf("%s: %v", stmt, err)
	}
}

func imageOf(t testing.TB, c *sql.Conn) (b []byte) {
	t.Helper()
	err := c.Raw(func(dc any) (err error) {
		b, err = dc.(*sqlite3.SQLiteConn).Serialize("main")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// step returns the LTX file from the last state to the present one.
func (p *primary) step() file {
	p.t.Helper()
	image := imageOf(p.t, p.conn)
	if p.image != nil && bytes.Equal(image, p.image) {
		p.t.Fatal("the primary has not changed")
	}
	f := encodeStep(p.t, p.size, p.pos, p.image, image, &p.sums)
	p.image, p.pos = image, f.pos
	return f
}

// full returns the present state as a full file one TXID on.
func (p *primary) full() file {
	f := encodeStep(p.t, p.size, p.pos, nil, imageOf(p.t, p.conn), nil)
	p.image, p.sums, p.pos = f.image, nil, f.pos
	return f
}

// encodeStep returns the file that turns old, at pos, into now. sums may keep
// the checksums of the pages of old, and gets those of now.
func encodeStep(t testing.TB, size uint32, pos ltx.Pos, old, now []byte, sums *[]ltx.Checksum) file {
	t.Helper()
	pages := func(b []byte) uint32 { return uint32(len(b)) / size }
	page := func(b []byte, n uint32) []byte {
		if n > pages(b) {
			return nil
		}
		return b[(n-1)*size : n*size]
	}
	var list []uint32
	var sum ltx.Checksum
	var known, all []ltx.Checksum
	if sums != nil {
		known = *sums
	}
	for n := uint32(1); n <= pages(now); n++ {
		changed := pos.IsZero() || n > pages(old) || !bytes.Equal(page(old, n), page(now, n))
		if changed {
			list = append(list, n)
		}
		if changed || int(n) > len(known) {
			all = append(all, pagesum.Of(n, page(now, n)))
		} else {
			all = append(all, known[n-1])
		}
		sum ^= all[n-1]
	}
	if sums != nil {
		*sums = all
	}
	h := ltx.Header{Version: ltx.Version, PageSize: size, Commit: pages(now), MinTXID: pos.TXID + 1, MaxTXID: pos.TXID + 1,
		Timestamp: 1700000000000 + int64(pos.TXID), PreApplyChecksum: pos.PostApplyChecksum}
	return encodeFile(t, h, ltx.ChecksumFlag|sum, list, func(n uint32) []byte { return page(now, n) }, now)
}

func encodeFile(t testing.TB, h ltx.Header, post ltx.Checksum, list []uint32, page func(uint32) []byte, image []byte) file {
	t.Helper()
	b := bytes.NewBuffer(make([]byte, 0, 4096+len(list)*int(h.PageSize)))
	e, err := ltx.NewEncoder(b)
	if err == nil {
		err = e.EncodeHeader(h)
	}
	for _, n := range list {
		if err == nil {
			err = e.EncodePage(ltx.PageHeader{Pgno: n}, page(n))
		}
	}
	e.SetPostApplyChecksum(post)
	if err == nil {
		err = e.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return file{data: b.Bytes(), pos: ltx.Pos{TXID: h.MaxTXID, PostApplyChecksum: post}, image: image}
}

const accounts = 40

// bank makes the schema whose sum of balances never changes.
func (p *primary) bank() file {
	p.exec("CREATE TABLE acct(id INTEGER PRIMARY KEY, bal INTEGER, pad BLOB)")
	p.exec("CREATE TABLE head(seq INTEGER)")
	p.exec("CREATE INDEX acct_bal ON acct(bal)")
	p.exec("INSERT INTO head VALUES(0)")
	p.exec(fmt.Sprintf("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<%d) INSERT INTO acct SELECT i, 1000, zeroblob(200) FROM n", accounts))
	return p.step()
}

// transfer is one transaction of the bank.
func (p *primary) transfer(rnd *rand.Rand) file {
	n := rnd.IntN(50)
	p.exec("BEGIN")
	p.exec("UPDATE acct SET bal=bal-? WHERE id=?", n, 1+rnd.IntN(accounts))
	p.exec("UPDATE acct SET bal=bal+?, pad=? WHERE id=?", n, fmt.Appendf(nil, "%0200d", rnd.Int()), 1+rnd.IntN(accounts))
	p.exec("UPDATE head SET seq=seq+1")
	p.exec("COMMIT")
	return p.step()
}

// churn is one of many kinds of change, chosen at random.
func (p *primary) churn(rnd *rand.Rand) file {
	switch rnd.IntN(20) {
	case 0:
		p.exec("CREATE TABLE IF NOT EXISTS big(id INTEGER PRIMARY KEY, b BLOB)")
		p.exec("INSERT INTO big(b) VALUES(randomblob(?))", 1+rnd.IntN(60000))
	case 1:
		p.exec("CREATE TABLE IF NOT EXISTS big(id INTEGER PRIMARY KEY, b BLOB)")
		p.exec("DELETE FROM big WHERE id%2=0")
		p.exec("UPDATE head SET seq=seq+1")
	case 2:
		p.exec("UPDATE head SET seq=seq+1")
		p.exec("VACUUM")
	case 3:
		p.exec("CREATE TABLE IF NOT EXISTS big(id INTEGER PRIMARY KEY, b BLOB)")
		p.exec("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<?) INSERT INTO big(b) SELECT randomblob(4000) FROM n", p.bulk)
	case 4:
		p.exec("DROP TABLE IF EXISTS big")
		p.exec("UPDATE head SET seq=seq+1")
	default:
		return p.transfer(rnd)
	}
	return p.step()
}

// foreign is a plain connection to a replica.
func foreign(t testing.TB, path string, more ...string) *sql.Conn {
	t.Helper()
	dsn := "file:" + path + "?mode=rw&_busy_timeout=0"
	for _, m := range more {
		dsn += "&" + m
	}
	db, err := sql.Open("sqlite3", dsn)
	if err != nil {
		t.Fatal(err)
	}
	c, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); db.Close() })
	return c
}

// check compares what a foreign connection sees with image, byte by byte, and
// asks for integrity.
func check(t testing.TB, path string, want file) {
	t.Helper()
	c := foreign(t, path)
	defer closeForeign(t, c)
	if got := imageOf(t, c); !bytes.Equal(got, want.image) {
		t.Fatalf("replica differs from the primary at %s: %s", want.pos, firstDifference(got, want.image))
	}
	var ok string
	if err := c.QueryRowContext(context.Background(), "PRAGMA integrity_check").Scan(&ok); err != nil || ok != "ok" {
		t.Fatalf("integrity_check: %s %v", ok, err)
	}
}

// closeForeign closes the connection itself, not just its place in the pool.
func closeForeign(t testing.TB, c *sql.Conn) {
	t.Helper()
	if err := c.Raw(func(any) error { return driver.ErrBadConn }); !errors.Is(err, driver.ErrBadConn) {
		t.Fatal(err)
	}
	c.Close()
}

func firstDifference(a, b []byte) string {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return fmt.Sprintf("byte %d, lengths %d and %d", i, len(a), len(b))
		}
	}
	return fmt.Sprintf("lengths %d and %d", len(a), len(b))
}

func open(t testing.TB, cfg Config) *Replica {
	t.Helper()
	r, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func apply(t testing.TB, r *Replica, f file) {
	t.Helper()
	if err := r.Apply(t.Context(), f.section(), ApplyInfo{Seq: at(uint64(f.pos.TXID) + 100)}); err != nil {
		t.Fatalf("apply %s: %v", f.pos, err)
	}
	if got := r.Position(); got.Pos != f.pos || got.Seq != uint64(f.pos.TXID)+100 {
		t.Fatalf("position %v after %s", got, f.pos)
	}
}

func applyFull(t testing.TB, r *Replica, f file) {
	t.Helper()
	if err := r.Apply(t.Context(), f.section(), ApplyInfo{Full: true, Seq: at(uint64(f.pos.TXID) + 100)}); err != nil {
		t.Fatalf("apply full %s: %v", f.pos, err)
	}
}

func replicaPath(t testing.TB) string { return filepath.Join(t.TempDir(), "replica.db") }

func seeded(t testing.TB, seed uint64) *rand.Rand {
	t.Helper()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

func mustWrite(t testing.TB, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// at is a stream sequence that is known.
func at(seq uint64) func() uint64 { return func() uint64 { return seq } }
