package wire

import (
	"errors"
	"maps"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/superfly/ltx"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func sampleMeta() Meta {
	return Meta{
		DB: "app", Min: 7, Max: 7,
		Timestamp: time.Date(2031, 2, 3, 4, 5, 6, 789e6, time.UTC),
		Pre:       ltx.ChecksumFlag | 0x123, Post: ltx.ChecksumFlag | 0xabc,
		PageSize: 4096, Commit: 99, Size: 12345,
		Writer: "w-1", Epoch: 3, Base: 41, Part: 2, Parts: 3,
	}
}

func TestMetaRoundTrip(t *testing.T) {
	t.Parallel()
	first := sampleMeta()
	first.Min, first.Max, first.Pre, first.Full, first.Base = 1, 1, 0, true, 0
	first.Part, first.Parts = 1, 1
	reseed := sampleMeta()
	reseed.Full, reseed.Pre = true, ltx.ChecksumFlag
	large := sampleMeta()
	large.Min, large.Max, large.PageSize, large.Commit = math.MaxUint64, math.MaxUint64, 65536, math.MaxUint32
	large.Size, large.Epoch, large.Base = math.MaxInt64, math.MaxUint64, math.MaxUint64
	large.Part, large.Parts = math.MaxInt32, math.MaxInt32
	for name, m := range map[string]Meta{"delta part": sampleMeta(), "first": first, "re-seed": reseed, "limits": large} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseMeta(m.Header())
			if err != nil || got != m {
				t.Fatalf("got %+v, %v\nwant %+v", got, err, m)
			}
		})
	}
}

func TestMetaMsgIDTellsDatabasesApart(t *testing.T) {
	t.Parallel()
	a, b := sampleMeta(), sampleMeta()
	b.DB = "other"
	if a.MsgID() == b.MsgID() {
		t.Fatalf("one message id for two databases: %s", a.MsgID())
	}
}

func TestParseMetaRefuses(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		name  string
		value []string
		want  string // header named by the error
	}{
		"missing":             {HeaderMinTXID, nil, HeaderMinTXID},
		"twice":               {HeaderCommit, []string{"1", "2"}, HeaderCommit},
		"upper-case hex":      {HeaderPreChecksum, []string{"800000000000ABCD"}, HeaderPreChecksum},
		"short hex":           {HeaderPostChecksum, []string{"8"}, HeaderPostChecksum},
		"zero txid":           {HeaderMinTXID, []string{"0000000000000000"}, HeaderMinTXID},
		"range":               {HeaderMaxTXID, []string{"0000000000000008"}, HeaderMaxTXID},
		"no flag":             {HeaderPostChecksum, []string{"0000000000000abc"}, HeaderPostChecksum},
		"pre without flag":    {HeaderPreChecksum, []string{"0000000000000000"}, HeaderPreChecksum},
		"plus sign":           {HeaderCommit, []string{"+9"}, HeaderCommit},
		"leading zero":        {HeaderCommit, []string{"09"}, HeaderCommit},
		"no pages":            {HeaderCommit, []string{"0"}, HeaderCommit},
		"page size":           {HeaderPageSize, []string{"4095"}, HeaderPageSize},
		"huge page size":      {HeaderPageSize, []string{"131072"}, HeaderPageSize},
		"negative size":       {HeaderSize, []string{"-1"}, HeaderSize},
		"size overflow":       {HeaderSize, []string{"9223372036854775808"}, HeaderSize},
		"local time":          {HeaderTimestamp, []string{"2031-02-03T04:05:06.789+01:00"}, HeaderTimestamp},
		"microseconds":        {HeaderTimestamp, []string{"2031-02-03T04:05:06.789123Z"}, HeaderTimestamp},
		"writer":              {HeaderWriter, []string{"a.b"}, HeaderWriter},
		"epoch zero":          {HeaderEpoch, []string{"0"}, HeaderEpoch},
		"full":                {HeaderFull, []string{"true"}, HeaderFull},
		"base zero":           {HeaderBase, []string{"0"}, HeaderBase},
		"part without count":  {HeaderPart, []string{"2"}, HeaderPart},
		"part zero":           {HeaderPart, []string{"0/3"}, HeaderPart},
		"part past the end":   {HeaderPart, []string{"4/3"}, HeaderPart},
		"one of one":          {HeaderPart, []string{"1/1"}, HeaderPart},
		"more parts than len": {HeaderPart, []string{"2/20000"}, HeaderPart},
		"foreign id":          {HeaderMsgID, []string{"something"}, HeaderMsgID},
		"id of another part":  {HeaderMsgID, []string{sampleMeta().MsgID() + "1"}, HeaderMsgID},
		"id of no database":   {HeaderMsgID, []string{strings.TrimPrefix(sampleMeta().MsgID(), "app")}, HeaderMsgID},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := sampleMeta().Header()
			h[c.name] = c.value
			_, err := ParseMeta(h)
			if he, ok := errors.AsType[*HeaderError](err); !ok || he.Name != c.want {
				t.Fatalf("got %v, want a fault of %s", err, c.want)
			}
		})
	}
}

func TestParseMetaFirstTransaction(t *testing.T) {
	t.Parallel()
	m := sampleMeta()
	m.Min, m.Max = 1, 1
	if _, err := ParseMeta(m.Header()); err == nil {
		t.Error("first transaction with a checksum before it was accepted")
	}
	m.Pre = 0
	if _, err := ParseMeta(m.Header()); err == nil {
		t.Error("first transaction that is not full was accepted")
	}
}

func TestMetaOf(t *testing.T) {
	t.Parallel()
	h := ltx.Header{MinTXID: 1, MaxTXID: 1, Timestamp: 1234, PageSize: 512, Commit: 4}
	tr := ltx.Trailer{PostApplyChecksum: ltx.ChecksumFlag | 5}
	m := MetaOf(h, tr, 700)
	want := Meta{Min: 1, Max: 1, Timestamp: time.UnixMilli(1234).UTC(), Post: ltx.ChecksumFlag | 5, PageSize: 512, Commit: 4, Size: 700, Full: true, Part: 1, Parts: 1}
	if m != want {
		t.Fatalf("got %+v, want %+v", m, want)
	}
	if m.PrePos() != (ltx.Pos{}) || m.PostPos() != ltx.NewPos(1, ltx.ChecksumFlag|5) {
		t.Fatalf("positions %s → %s", m.PrePos(), m.PostPos())
	}
}

func sampleClaim() Claim {
	return Claim{Epoch: 4, Writer: "w-2", Host: "db1.example", PID: 77, Pos: ltx.NewPos(9, ltx.ChecksumFlag|3), Time: time.UnixMilli(1_900_000_000_123).UTC()}
}

func TestClaimRoundTrip(t *testing.T) {
	t.Parallel()
	start := sampleClaim()
	start.Pos = ltx.Pos{}
	for _, c := range []Claim{sampleClaim(), start} {
		if got, err := ParseClaim(c.Header()); err != nil || got != c {
			t.Errorf("got %+v, %v, want %+v", got, err, c)
		}
	}
	odd := sampleClaim()
	odd.Host = "a\r\nLtx-Epoch: 9 é"
	if got, err := ParseClaim(odd.Header()); err != nil || strings.ContainsAny(got.Host, "\r\n ") {
		t.Errorf("host %q, %v", got.Host, err)
	}
}

func TestParseClaimRefuses(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]string{
		HeaderEpoch: "x", HeaderWriter: "", HeaderHost: "a b", HeaderPID: "-2",
		HeaderPos: "0000000000000001/0000000000000000", HeaderTimestamp: "now",
	} {
		h := sampleClaim().Header()
		h[name] = []string{value}
		_, err := ParseClaim(h)
		if he, ok := errors.AsType[*HeaderError](err); !ok || he.Name != name {
			t.Errorf("%s=%q: got %v", name, value, err)
		}
	}
}

func TestParseDB(t *testing.T) {
	t.Parallel()
	for s, ok := range map[string]bool{
		"app": true, "A_b-9": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, "a.b": false, "*": false, ">": false, "a b": false, "ä": false, "a\x00": false, "a/b": false,
	} {
		db, err := ParseDB(s)
		if (err == nil) != ok || ok && db != DB(s) || !ok && !errors.Is(err, ErrInvalidName) {
			t.Errorf("ParseDB(%q) = %q, %v", s, db, err)
		}
	}
}

func TestDBFromPath(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]DB{"/a/b/app.db": "app", "app.sqlite3": "app", "app": "app", "./x-1.db": "x-1", "my.app.db": "", ".hidden": "", "/": "", "": "", "a b.db": ""} {
		db, err := DBFromPath(path)
		if db != want || (err == nil) != (want != "") {
			t.Errorf("DBFromPath(%q) = %q, %v; want %q", path, db, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "NAME="+path) {
			t.Errorf("error without the form to use: %v", err)
		}
	}
}

func TestSubjects(t *testing.T) {
	t.Parallel()
	db := DB("app")
	got := []string{db.DataSubject(), db.EpochSubject(), db.Filter()}
	if want := []string{"ltx.app.0", "ltx.app.epoch", "ltx.app.>"}; !reflect.DeepEqual(got, want) {
		t.Fatalf("got %v, want %v", got, want)
	}
}

func TestPartsCoverTheFile(t *testing.T) {
	t.Parallel()
	for _, size := range []int64{1, 9, 10, 11, 20, 1001, 1 << 40} {
		partSize := 10
		if size > 1<<20 {
			partSize = 1 << 20
		}
		n, next := PartCount(size, partSize), int64(0)
		for part := 1; part <= n; part++ {
			off, length := PartRange(size, partSize, part)
			if off != next || length <= 0 || length > int64(partSize) || part < n && length != int64(partSize) {
				t.Fatalf("size %d part %d/%d: off %d len %d, want off %d", size, part, n, off, length, next)
			}
			next = off + length
		}
		if next != size {
			t.Fatalf("parts of %d cover %d", size, next)
		}
	}
	if _, n := PartRange(10, 10, 2); n != 0 {
		t.Fatal("a part past the end has a length")
	}
}

// TestHeaderMutants flips bits of header values: what still parses must print
// exactly what was parsed.
func TestHeaderMutants(t *testing.T) {
	t.Parallel()
	const seed = 20310203
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	names := []string{HeaderMinTXID, HeaderMaxTXID, HeaderTimestamp, HeaderPreChecksum, HeaderPostChecksum, HeaderPageSize, HeaderCommit, HeaderSize, HeaderWriter, HeaderEpoch, HeaderBase, HeaderPart, HeaderMsgID}
	for range 20_000 {
		h := sampleMeta().Header()
		name := names[rnd.IntN(len(names))]
		b := []byte(h[name][0])
		b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
		h[name] = []string{string(b)}
		if m, err := ParseMeta(h); err == nil && !reflect.DeepEqual(m.Header(), h) {
			t.Fatalf("%s: %q parsed to %+v", name, b, m)
		}
	}
}

func FuzzParseMeta(f *testing.F) {
	seeds := []Meta{sampleMeta()}
	first := sampleMeta()
	first.Min, first.Max, first.Pre, first.Full, first.Part, first.Parts = 1, 1, 0, true, 1, 1
	for _, m := range append(seeds, first) {
		f.Add(headerText(m.Header()))
	}
	f.Fuzz(func(t *testing.T, text string) {
		h := parseText(text)
		m, err := ParseMeta(h)
		if err != nil {
			if _, ok := errors.AsType[*HeaderError](err); !ok || m != (Meta{}) {
				t.Fatalf("%+v, %v", m, err)
			}
			return
		}
		assertCanonical(t, h, m.Header())
	})
}

func FuzzParseClaim(f *testing.F) {
	f.Add(headerText(sampleClaim().Header()))
	f.Fuzz(func(t *testing.T, text string) {
		h := parseText(text)
		c, err := ParseClaim(h)
		if err != nil {
			if _, ok := errors.AsType[*HeaderError](err); !ok || c != (Claim{}) {
				t.Fatalf("%+v, %v", c, err)
			}
			return
		}
		assertCanonical(t, h, c.Header())
	})
}

func FuzzParseDB(f *testing.F) {
	for _, s := range []string{"app", "", ">", "a.b", "A-_9", "\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		db, err := ParseDB(s)
		if err == nil && (string(db) != s || strings.ContainsAny(s, ".*> \t\r\n") || len(s) > MaxNameLen) {
			t.Fatalf("%q became %q", s, db)
		}
		if strings.Count(db.DataSubject(), ".") != 2 && err == nil {
			t.Fatalf("subject %q", db.DataSubject())
		}
	})
}

// assertCanonical wants every header that was written to be the one parsed.
func assertCanonical(t *testing.T, in, out nats.Header) {
	t.Helper()
	known := nats.Header{}
	for name := range out {
		known[name] = in[name]
	}
	if !reflect.DeepEqual(known, out) {
		t.Fatalf("not canonical: parsed %v, printed %v", known, out)
	}
}

func headerText(h nats.Header) string {
	var b strings.Builder
	for name, values := range maps.All(h) {
		for _, v := range values {
			b.WriteString(name + ": " + v + "\n")
		}
	}
	return b.String()
}

func parseText(text string) nats.Header {
	h := nats.Header{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": "); ok {
			h[name] = append(h[name], value)
		}
	}
	return h
}

func BenchmarkParseMeta(b *testing.B) {
	h := sampleMeta().Header()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseMeta(h); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMetaHeader(b *testing.B) {
	m := sampleMeta()
	b.ReportAllocs()
	for b.Loop() {
		_ = m.Header()
	}
}
