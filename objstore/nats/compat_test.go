package natsobj

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/objstore"
)

// TestOthersReadOurs: the client library that the nats command and Litestream
// use lists and reads what we put, and does not see what we deleted.
func TestOthersReadOurs(t *testing.T) {
	s, b := archive(t, under("db/ltx"))
	for _, n := range []int{0, 1, chunkSize, chunkSize + 1, 5*chunkSize + 7} {
		key := fmt.Sprintf("1/%d.ltx", n)
		_, err := s.Put(t.Context(), key, bytes.NewReader(content(n)), objstore.PutOptions{Timestamp: stamp, Meta: map[string]string{"checksum": "f00d"}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.GetBytes(t.Context(), "db/ltx/"+key)
		if err != nil || !bytes.Equal(got, content(n)) {
			t.Fatalf("%s: read %d bytes, %v", key, len(got), err)
		}
		i, err := b.GetInfo(t.Context(), "db/ltx/"+key)
		if err != nil || i.Size != uint64(n) || i.Metadata["checksum"] != "f00d" {
			t.Fatalf("%s: %+v, %v", key, i, err)
		}
		// This is how Litestream looks for it.
		at, err := time.Parse(time.RFC3339Nano, i.Headers["Litestream-Timestamp"][0])
		if err != nil || !at.Equal(stamp) {
			t.Errorf("%s: timestamp %s, %v", key, at, err)
		}
	}
	nameAll(t, s) // which must not disturb them
	put(t, s, "1/1.ltx", content(3))
	remove(t, s, "1/0.ltx", fmt.Sprintf("1/%d.ltx", chunkSize))
	infos, err := b.List(t.Context(), jetstream.ListObjectsShowDeleted())
	if err != nil || len(infos) != 3 {
		t.Fatalf("they list %d objects, %v, want 3 and no deleted ones", len(infos), err)
	}
	remove(t, s, "1/1.ltx", fmt.Sprintf("1/%d.ltx", chunkSize+1), fmt.Sprintf("1/%d.ltx", 5*chunkSize+7))
	if _, err := b.List(t.Context()); !errors.Is(err, jetstream.ErrNoObjectsFound) {
		t.Fatalf("they list what we deleted: %v", err)
	}
	if left := stored(t, s, ">"); len(left) != 1 { // the mark
		t.Errorf("after all was deleted the stream has %v", left)
	}
}

// pieces yields its slices one by one, as a pipe does: other clients make a
// chunk of what one Read gives.
type pieces struct{ left [][]byte }

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.left[0])
	p.left = p.left[1:]
	return n, nil
}

func TestOursReadOthers(t *testing.T) {
	s, b := archive(t)
	body := content(2_000_000)
	meta := func(name, timestamp string) jetstream.ObjectMeta {
		return jetstream.ObjectMeta{Name: name, Headers: nats.Header{"Litestream-Timestamp": {timestamp}}, Metadata: map[string]string{"With-Hyphen": "x", "fine": "y"}}
	}
	var uneven [][]byte // as Litestream puts: the header, then what its writer writes
	for i := 0; i < len(body); {
		n := min(100+i%7000, len(body)-i)
		uneven = append(uneven, body[i:i+n])
		i += n
	}
	for name, r := range map[string]io.Reader{"ltx/even.ltx": bytes.NewReader(body), "ltx/uneven.ltx": &pieces{uneven}} {
		if _, err := b.Put(t.Context(), meta(name, "2021-03-04T06:06:07.089+01:00"), r); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time places are known
			if got := get(t, s, name, 0, -1); !bytes.Equal(got, body) {
				t.Fatalf("%s: %d bytes", name, len(got))
			}
			for _, r := range [][2]int64{{0, 10}, {99, 2}, {1_999_000, 5000}, {1_000_000, 300_000}, {1_234_567, 1}} {
				end := min(r[0]+r[1], int64(len(body)))
				if got := get(t, s, name, r[0], r[1]); !bytes.Equal(got, body[r[0]:end]) {
					t.Errorf("%s %v: other bytes", name, r)
				}
			}
		}
		i, err := s.Stat(t.Context(), name)
		if err != nil || !i.Timestamp.Equal(stamp) || i.Timestamp.Location() != time.UTC || i.Size != 2_000_000 || len(i.Meta) != 1 || i.Meta["fine"] != "y" {
			t.Errorf("%s: %+v, %v", name, i, err)
		}
	}
	for name, timestamp := range map[string]string{"ltx/second.ltx": "2021-03-04T05:06:07Z", "ltx/nano.ltx": "2021-03-04T05:06:07.000000001Z"} {
		if _, err := b.Put(t.Context(), meta(name, timestamp), bytes.NewReader(nil)); err != nil {
			t.Fatal(err)
		}
		want, _ := time.Parse(time.RFC3339Nano, timestamp)
		if i, err := s.Stat(t.Context(), name); err != nil || !i.Timestamp.Equal(want) {
			t.Errorf("%s: %+v, %v", name, i, err)
		}
	}
	for name, headers := range map[string]nats.Header{"ltx/none.ltx": nil, "ltx/broken.ltx": {"Litestream-Timestamp": {"yesterday"}}} {
		if _, err := b.Put(t.Context(), jetstream.ObjectMeta{Name: name, Headers: headers}, nil); err != nil {
			t.Fatal(err)
		}
		if i, err := s.Stat(t.Context(), name); err != nil || !i.Timestamp.IsZero() {
			t.Errorf("%s: %+v, %v: want no timestamp", name, i, err)
		}
	}
	want := "ltx/broken.ltx ltx/even.ltx ltx/nano.ltx ltx/none.ltx ltx/second.ltx ltx/uneven.ltx"
	if got := keys(t, s, "ltx/"); got != want {
		t.Errorf("listed %s", got)
	}
}

// TestRangesOfOthersAreReadOnce: what precedes a range is not fetched again.
func TestRangesOfOthersAreReadOnce(t *testing.T) {
	s, b := archive(t)
	body := content(8 << 20)
	if _, err := b.PutBytes(t.Context(), "x", body); err != nil {
		t.Fatal(err)
	}
	cost := func(offset int64) uint64 {
		before := s.nc.Stats().InBytes
		if got := get(t, s, "x", offset, 10); !bytes.Equal(got, body[offset:offset+10]) {
			t.Errorf("other bytes at %d", offset)
		}
		return s.nc.Stats().InBytes - before
	}
	if n := cost(7 << 20); n < 7<<20 {
		t.Errorf("the first range cost %d bytes: how?", n)
	}
	for _, offset := range []int64{6 << 20, 7 << 20, 3<<20 + 5, 0} {
		if n := cost(offset); n > 2*stepEvery {
			t.Errorf("a range at %d cost %d bytes", offset, n)
		}
	}
}

// TestRangesCostTheirChunks: of what we put nothing else is fetched.
func TestRangesCostTheirChunks(t *testing.T) {
	s, _ := archive(t)
	body := content(40*chunkSize + 5)
	put(t, s, "x", body)
	for _, r := range []struct{ offset, size, chunks int64 }{{0, 10, 1}, {39 * chunkSize, 10, 1}, {40 * chunkSize, -1, 1}, {20*chunkSize - 5, 10, 2}, {chunkSize, 3 * chunkSize, 3}} {
		before := s.nc.Stats()
		if got := get(t, s, "x", r.offset, r.size); !bytes.HasPrefix(body[r.offset:], got) || len(got) == 0 {
			t.Errorf("other bytes at %d", r.offset)
		}
		after := s.nc.Stats()
		if n := int64(after.InBytes - before.InBytes); n > r.chunks*chunkSize+5000 {
			t.Errorf("%d bytes at %d cost %d", r.size, r.offset, n)
		}
		if n := int64(after.OutMsgs - before.OutMsgs); n > 1+r.chunks {
			t.Errorf("%d bytes at %d cost %d requests", r.size, r.offset, n)
		}
	}
}

// TestDeletedByOthers: their marks of deletions are no objects, also for IfAbsent.
func TestDeletedByOthers(t *testing.T) {
	s, b := archive(t)
	put(t, s, "a/1.ltx", content(10))
	put(t, s, "a/2.ltx", content(10))
	nameAll(t, s)
	if keys(t, s, "") != "a/1.ltx a/2.ltx" {
		t.Fatal("not listed")
	}
	if err := b.Delete(t.Context(), "a/1.ltx"); err != nil {
		t.Fatal(err)
	}
	if got := keys(t, s, ""); got != "a/2.ltx" {
		t.Errorf("listed %q", got)
	}
	if got := keys(t, reopen(t, s), ""); got != "a/2.ltx" {
		t.Errorf("a new store lists %q", got)
	}
	if _, err := s.Stat(t.Context(), "a/1.ltx"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("stat: %v", err)
	}
	opts := objstore.PutOptions{Timestamp: stamp, IfAbsent: true}
	if _, err := s.Put(t.Context(), "a/1.ltx", bytes.NewReader(content(20)), opts); err != nil {
		t.Fatalf("put if absent: %v", err)
	}
	if _, err := s.Put(t.Context(), "a/1.ltx", bytes.NewReader(content(30)), opts); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("put if absent: %v", err)
	}
	if got := keys(t, s, ""); got != "a/1.ltx a/2.ltx" {
		t.Errorf("listed %q", got)
	}
}

// TestDeletedWhileRead: what was deleted under a reader is missing, not damaged.
func TestDeletedWhileRead(t *testing.T) {
	s, b := archive(t)
	body := content(20 << 20)
	put(t, s, "ours", body)
	if _, err := b.PutBytes(t.Context(), "theirs", body); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"ours", "theirs"} {
		r, err := s.Get(t.Context(), key, 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if err := b.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, errGone) {
			t.Errorf("%s: read %d bytes more, %v; want fs.ErrNotExist", key, n, err)
		}
	}
}

// TestLinksAndOddNames: what the bucket may hold besides is not ours to see.
func TestLinksAndOddNames(t *testing.T) {
	s, b := archive(t)
	put(t, s, "a.ltx", content(10))
	target, err := b.GetInfo(t.Context(), "a.ltx")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.AddLink(t.Context(), "link.ltx", target); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"with space", "ünicode", "a//b", ".hidden", "per%cent", "trailing/", "a.*"} {
		if _, err := b.PutBytes(t.Context(), name, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	if got := keys(t, s, ""); got != "a.ltx" {
		t.Errorf("listed %q", got)
	}
	nameAll(t, s)
	if got := keys(t, reopen(t, s), ""); got != "a.ltx" {
		t.Errorf("listed %q by the index", got)
	}
	_, err = s.Put(t.Context(), "link.ltx", bytes.NewReader(nil), objstore.PutOptions{Timestamp: stamp, IfAbsent: true})
	if !errors.Is(err, fs.ErrExist) {
		t.Errorf("put if absent over a link: %v", err)
	}
	if _, err := s.Get(t.Context(), "link.ltx", 0, -1); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("get of a link: %v", err)
	}
	swept, err := s.sweep(t.Context(), 0)
	if err != nil || swept != (Swept{}) {
		t.Errorf("swept %+v, %v: want nothing", swept, err)
	}
	infos, err := b.List(t.Context())
	if err != nil || len(infos) != 9 {
		t.Errorf("%d objects are left, %v", len(infos), err)
	}
}

// TestHostileIdentifier: an object's nuid becomes part of a subject that is
// purged.
func TestHostileIdentifier(t *testing.T) {
	for _, nuid := range []string{">", "*", "", "a.b", "ltx-names.>", "a b"} {
		o := object{seq: 1}
		o.NUID, o.Chunks = nuid, 1
		if o.hasChunks() {
			t.Errorf("nuid %q would be purged", nuid)
		}
	}
	o := object{seq: 1}
	o.NUID, o.Chunks = "yLFxRHLnRTfl5jXHmSqfZ9", 1
	if !o.hasChunks() {
		t.Error("a nuid of nats.go is not taken")
	}
}

func TestDamage(t *testing.T) {
	s, _ := archive(t)
	body := content(3 * chunkSize)
	put(t, s, "x", body)
	o, err := s.look(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	// One chunk is replaced by another of the same length, as a disk would.
	u := s.newUpload("x", objstore.PutOptions{})
	u.nuid = o.NUID
	if err := s.purge(t.Context(), s.chunkSubject(o.NUID), 0); err != nil {
		t.Fatal(err)
	}
	body[chunkSize+5]++
	if err := u.send(t.Context(), bytes.NewReader(body)); err != nil {
		t.Fatal(err)
	}
	u.hash.Reset()
	data, err := u.meta(objstore.PutOptions{Timestamp: stamp})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.publish(t.Context(), s.metaSubject("x"), onlyOne("", nil).Header, data); err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(t.Context(), "x", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); !errors.Is(err, objstore.ErrDamaged) || errors.Is(err, objstore.ErrTransient) {
		t.Fatalf("read: %v, want ErrDamaged", err)
	}
	r.Close()

	// Chunks that went missing are an error at once, for whole and for ranges.
	if err := s.purge(t.Context(), s.chunkSubject(o.NUID), 0); err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]int64{{0, -1}, {chunkSize, 5}, {0, 2 * chunkSize}} {
		r, err := s.Get(t.Context(), "x", r[0], r[1])
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(r); !errors.Is(err, objstore.ErrDamaged) || errors.Is(err, objstore.ErrTransient) {
			t.Errorf("read: %v, want ErrDamaged", err)
		}
		r.Close()
	}
}

// TestInterleaved: chunks of several Puts alternate in the stream, and are
// found all the same.
func TestInterleaved(t *testing.T) {
	s, _ := archive(t)
	const n = 40
	body := content(n * chunkSize)
	u := s.newUpload("x", objstore.PutOptions{Timestamp: stamp})
	for k := range n {
		if err := u.sendChunk(t.Context(), body[k*chunkSize:(k+1)*chunkSize]); err != nil {
			t.Fatal(err)
		}
		if err := u.win.drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range (k * k) % 11 { // strangers between, unevenly
			put(t, s, "other", []byte("x"))
		}
	}
	for _, stride := range []int{1, 4, 16, 64} {
		o := object{seq: u.win.acks[n-1] + 1, places: places{stride: stride}}
		o.NUID, o.Size, o.Chunks = u.nuid, n*chunkSize, n
		o.Opts = &jetstream.ObjectMetaOptions{ChunkSize: chunkSize}
		for k := 0; k < n; k += stride {
			o.places.seqs = append(o.places.seqs, u.win.acks[k])
		}
		if !o.places.fit(o.ObjectInfo) {
			t.Fatalf("stride %d does not fit", stride)
		}
		for _, k := range []int{0, 1, 5, 17, n - 1} {
			before := s.nc.Stats().OutMsgs
			m, err := s.openChunks(o, 0, 1).search(t.Context(), k)
			if err != nil || !bytes.Equal(m.Data, body[k*chunkSize:(k+1)*chunkSize]) {
				t.Fatalf("stride %d chunk %d: %v", stride, k, err)
			}
			if asked := s.nc.Stats().OutMsgs - before; asked > 8 || stride == 1 && asked > 1 {
				t.Errorf("stride %d chunk %d: %d requests", stride, k, asked)
			}
		}
		r := &reader{ctx: t.Context(), left: n * chunkSize, src: s.openChunks(o, 0, n*chunkSize)}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, body) {
			t.Errorf("stride %d: read %d bytes, %v", stride, len(got), err)
		}
		r.Close()
	}
}

func TestPlaces(t *testing.T) {
	seqs := []uint64{7}
	for i := range 5000 {
		seqs = append(seqs, seqs[i]+1+uint64(i%900/899))
	}
	for _, n := range []int{1, 2, 511, 512, 513, 1024, 1025, 5001} {
		p := thin(seqs[:n])
		if got := parsePlaces(p.String()); got.stride != p.stride || !slices.Equal(got.seqs, p.seqs) {
			t.Errorf("%d chunks: %s reads as %v", n, p, got)
		}
		if len(p.seqs) > maxPlaces || len(p.String()) > 300 {
			t.Errorf("%d chunks: %d places, %q", n, len(p.seqs), p)
		}
		o := jetstream.ObjectInfo{Size: uint64(n) * chunkSize, Chunks: uint32(n), ObjectMeta: jetstream.ObjectMeta{Opts: &jetstream.ObjectMetaOptions{ChunkSize: chunkSize}}}
		if !p.fit(o) {
			t.Errorf("%d chunks: do not fit", n)
		}
		o.Chunks++
		if p.fit(o) {
			t.Errorf("%d chunks: fit uneven ones", n)
		}
	}
}

func FuzzParsePlaces(f *testing.F) {
	for _, s := range []string{"", "1:7:", "1:7:1x511,", "2:100:1x3,5x1,", "1:0:", "0:1:", "1:1:0x5", "1:1:1x99999999999", "x:y:z"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p := parsePlaces(text)
		if p.stride == 0 {
			return
		}
		if len(p.seqs) == 0 || len(p.seqs) > maxPlaces {
			t.Fatalf("%d places", len(p.seqs))
		}
		if again := parsePlaces(p.String()); again.stride != p.stride || !slices.Equal(again.seqs, p.seqs) {
			t.Fatalf("%q reads as %v, %q as %v", text, p, p.String(), again)
		}
	})
}
