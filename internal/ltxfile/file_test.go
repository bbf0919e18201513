package ltxfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/testenv/oldltx"
)

// encode makes a file of the given pages with the encoder of superfly/ltx.
func encode(t testing.TB, rng *rand.Rand, pageSize uint32, pages int) []byte {
	t.Helper()
	var buf bytes.Buffer
	enc, err := ltx.NewEncoder(&buf)
	if err != nil {
		t.Fatal(err)
	}
	if err := enc.EncodeHeader(ltx.Header{Version: ltx.Version, PageSize: pageSize, Commit: uint32(2*pages + 5), MinTXID: 7, MaxTXID: 9, Timestamp: 12345, PreApplyChecksum: ltx.ChecksumFlag | 5}); err != nil {
		t.Fatal(err)
	}
	page := make([]byte, pageSize)
	for i := range pages {
		for j := range len(page) / 4 {
			page[rng.IntN(len(page))] = byte(j)
		}
		if err := enc.EncodePage(ltx.PageHeader{Pgno: uint32(2*i + 1)}, page); err != nil {
			t.Fatal(err)
		}
	}
	enc.SetPostApplyChecksum(ltx.ChecksumFlag | 77)
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// rewrite copies a file frame by frame, and verifies it.
func rewrite(b []byte) ([]byte, []Entry, error) {
	s, err := NewScanner(bytes.NewReader(b))
	if err != nil {
		return nil, nil, err
	}
	var out bytes.Buffer
	w, err := NewWriter(&out, s.Header(), "")
	if err != nil {
		return nil, nil, err
	}
	defer w.Abort()
	sum := s.Sum()
	page := make([]byte, s.Header().PageSize)
	var entries []Entry
	for off := int64(ltx.HeaderSize); ; {
		f, err := s.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if err := f.Decode(page); err != nil {
			return nil, nil, err
		}
		crc := DataCRC(page)
		sum.Page(f, crc)
		if err := w.Frame(f, crc); err != nil {
			return nil, nil, err
		}
		entries = append(entries, Entry{Pgno: f.Pgno, Offset: off, Size: int64(len(f.Raw))})
		off += int64(len(f.Raw))
	}
	t, err := s.Finish(sum)
	if err != nil {
		return nil, nil, err
	}
	_, _, err = w.Finish(t.PostApplyChecksum)
	return out.Bytes(), entries, err
}

// forms are a file with its pages in either form, and in both.
func forms(t testing.TB, file []byte) map[string][]byte {
	t.Helper()
	return map[string][]byte{
		"sized":  file,
		"framed": oldltx.Rewrite(t, file, nil),
		"mixed":  oldltx.Rewrite(t, file, func(pgno uint32) bool { return pgno%4 == 1 }),
	}
}

func TestRewriteIsEqual(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		pageSize uint32
		pages    int
	}{{512, 0}, {512, 1}, {512, 5000}, {1024, 30}, {4096, 300}, {65536, 20}} {
		for form, b := range forms(t, encode(t, rng, c.pageSize, c.pages)) {
			t.Run(fmt.Sprintf("%d/%d/%s", c.pageSize, c.pages, form), func(t *testing.T) { checkRewrite(t, b, c.pageSize, c.pages) })
		}
	}
}

func checkRewrite(t *testing.T, b []byte, pageSize uint32, pages int) {
	t.Helper()
	got, entries, err := rewrite(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b) {
		t.Fatal("the copy differs")
	}
	start, err := IndexStart(b[len(b)-TailSize:], int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	err = ReadIndex(bytes.NewReader(b[start:len(b)-TailSize]), start, pageSize, uint32(2*pages+5), func(e Entry) {
		if e != entries[i] {
			t.Fatalf("entry %+v, want %+v", e, entries[i])
		}
		if _, err := ParseFrame(b[e.Offset:e.Offset+e.Size], e.Pgno); err != nil {
			t.Fatal(err)
		}
		i++
	})
	if err != nil || i != len(entries) {
		t.Fatalf("%d entries, want %d: %v", i, len(entries), err)
	}
}

// TestSpill: an index that does not stay in memory is the same.
func TestSpill(t *testing.T) {
	t.Parallel()
	const pages = 300_000 // more than 1 MiB of index
	raw := []byte{0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0}
	hdr := ltx.Header{Version: ltx.Version, PageSize: 512, Commit: pages, MinTXID: 2, MaxTXID: 2, PreApplyChecksum: ltx.ChecksumFlag | 5}
	var out bytes.Buffer
	w, err := NewWriter(&out, hdr, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for pgno := uint32(1); pgno <= pages; pgno++ {
		binary.BigEndian.PutUint32(raw, pgno)
		if err := w.Frame(Frame{Pgno: pgno, Raw: raw}, 0); err != nil {
			t.Fatal(err)
		}
	}
	if w.index.file == nil {
		t.Fatal("the index did not spill")
	}
	_, size, err := w.Finish(ltx.ChecksumFlag | 9)
	if err != nil || size != int64(out.Len()) {
		t.Fatalf("%d bytes, wrote %d: %v", size, out.Len(), err)
	}
	b := out.Bytes()
	start, err := IndexStart(b[len(b)-TailSize:], size)
	if err != nil {
		t.Fatal(err)
	}
	n := uint32(0)
	if err := ReadIndex(bytes.NewReader(b[start:]), start, 512, pages, func(e Entry) { n++ }); err != nil || n != pages {
		t.Fatalf("%d entries, want %d: %v", n, pages, err)
	}
}

// TestScannerFindsDamage flips bits everywhere, and cuts everywhere.
func TestScannerFindsDamage(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(2, 2))
	for form, good := range forms(t, encode(t, rng, 512, 5)) {
		for at := range good {
			b := bytes.Clone(good)
			b[at] ^= 1 << rng.IntN(8)
			if _, _, err := rewrite(b); !errors.Is(err, ErrDamaged) && !samePages(t, b, good) {
				t.Fatalf("%s: byte %d flipped: %v", form, at, err)
			}
		}
		for n := range len(good) {
			if _, _, err := rewrite(good[:n]); !errors.Is(err, ErrDamaged) {
				t.Fatalf("%s: cut at %d: %v", form, n, err)
			}
		}
	}
}

// samePages: LZ4 has several blocks for the same bytes, so that a flipped bit can
// change nothing.
func samePages(t *testing.T, a, b []byte) bool {
	t.Helper()
	return bytes.Equal(decoded(t, a), decoded(t, b))
}

func decoded(t *testing.T, b []byte) []byte {
	t.Helper()
	dec := ltx.NewDecoder(bytes.NewReader(b))
	if err := dec.DecodeHeader(); err != nil {
		t.Fatal(err)
	}
	all := make([]byte, 0, len(b))
	page := make([]byte, dec.Header().PageSize)
	for {
		var h ltx.PageHeader
		if err := dec.DecodePage(&h, page); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(binary.BigEndian.AppendUint32(all, h.Pgno), page...)
	}
	if err := dec.Close(); err != nil {
		t.Fatal(err)
	}
	return all
}

func FuzzScanner(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 3))
	f.Add(encode(f, rng, 512, 0))
	for _, b := range forms(f, encode(f, rng, 512, 20)) {
		f.Add(b)
	}
	for _, b := range forms(f, encode(f, rng, 4096, 3)) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, _, err := rewrite(b)
		if err == nil && !bytes.Equal(got, b) {
			t.Fatal("accepted, and copied differently")
		}
		if err == nil {
			if err := ltx.NewDecoder(bytes.NewReader(b)).Verify(); err != nil {
				t.Fatalf("accepted what ltx.Decoder refuses: %v", err)
			}
		}
	})
}

func FuzzIndex(f *testing.F) {
	for _, b := range forms(f, encode(f, rand.New(rand.NewPCG(4, 4)), 512, 20)) {
		start, err := IndexStart(b[len(b)-TailSize:], int64(len(b)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[start:], start)
	}
	f.Fuzz(func(t *testing.T, index []byte, start int64) {
		prev := Entry{Offset: ltx.HeaderSize}
		_ = ReadIndex(bytes.NewReader(index), start, 512, 1000, func(e Entry) {
			if e.Pgno <= prev.Pgno || e.Offset != prev.Offset+prev.Size || e.Offset+e.Size > start {
				t.Fatalf("entry %+v after %+v, index at %d", e, prev, start)
			}
			prev = e
		})
	})
}
