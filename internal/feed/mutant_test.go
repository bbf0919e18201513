package feed

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/internal/stream/streamtest"
	"github.com/ltxstream/ltxstream/wire"
)

// fakeMsg is a delivery without a server.
type fakeMsg struct {
	jetstream.Msg
	m  *nats.Msg
	at jetstream.SequencePair
}

func (m fakeMsg) Data() []byte         { return m.m.Data }
func (m fakeMsg) Headers() nats.Header { return m.m.Header }
func (m fakeMsg) Subject() string      { return m.m.Subject }
func (m fakeMsg) Ack() error           { return nil }
func (m fakeMsg) Metadata() (*jetstream.MsgMetadata, error) {
	return &jetstream.MsgMetadata{Sequence: m.at, Timestamp: time.Unix(1, 0)}, nil
}

// offline is a Feed that is handed messages directly.
func offline(t testing.TB, limit int64) (*Feed, *int) {
	damaged := new(int)
	f := &Feed{
		cfg: Config{DB: "app", OnDamage: func(error) { *damaged++ }},
		log: slog.New(slog.DiscardHandler), asm: assembler{limit: limit, dir: t.TempDir()},
	}
	f.con = &connection{}
	return f, damaged
}

// mutate changes a run of messages in one way and says how.
func mutate(rnd *rand.Rand, msgs []*nats.Msg) ([]*nats.Msg, string) {
	out := make([]*nats.Msg, len(msgs))
	for i, m := range msgs {
		h := nats.Header{}
		for k, v := range m.Header {
			h[k] = slices.Clone(v)
		}
		out[i] = &nats.Msg{Subject: m.Subject, Header: h, Data: bytes.Clone(m.Data)}
	}
	i, j := rnd.IntN(len(out)), rnd.IntN(len(out))
	m := out[i]
	switch kind := rnd.IntN(9); kind {
	case 0, 1, 2:
		m.Data[rnd.IntN(len(m.Data))] ^= 1 << rnd.IntN(8)
		return out, "bit of the body"
	case 3:
		names := make([]string, 0, len(m.Header))
		for name := range m.Header {
			names = append(names, name)
		}
		slices.Sort(names)
		name := names[rnd.IntN(len(names))]
		b := []byte(m.Header[name][0])
		b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
		m.Header[name] = []string{string(b)}
		return out, "bit of header " + name
	case 4:
		m.Data = m.Data[:rnd.IntN(len(m.Data))]
		return out, "truncation"
	case 5:
		m.Data = append(m.Data, byte(rnd.Uint32()))
		return out, "a byte more"
	case 6:
		out[i], out[j] = out[j], out[i]
		return out, "swap"
	case 7:
		return slices.Delete(out, i, i+1), "loss"
	default:
		return slices.Insert(out, rnd.IntN(len(out)+1), out[j]), "replay"
	}
}

// TestMutants feeds runs of messages with one fault each: nothing but the
// original files may come out, in order, and where not all of them do, the
// fault was reported or the chain broke with an error.
func TestMutants(t *testing.T) {
	t.Parallel()
	const seed, mutants = 20310711, 2500
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 3))
	c := streamtest.NewChain("app", seed)
	var files []streamtest.File
	var msgs []*nats.Msg
	for i := range 6 {
		f := c.Grow(t, 12, 4)
		files = append(files, f)
		msgs = append(msgs, c.Messages(f, []int{600, 1 << 20}[i%2])...)
	}
	last := c.Step(t, 1) // after every fault, so that the loss of a tail shows
	files = append(files, last)
	seen := map[string]int{}
	for range mutants {
		run, kind := mutate(rnd, msgs)
		run = append(run, c.Messages(last, 1<<20)...)
		f, damaged := offline(t, []int64{1 << 20, 1000}[rnd.IntN(2)])
		n, err := drive(t, f, run, files)
		whole := n == len(files)
		switch {
		case err != nil, *damaged > 0, whole:
		default:
			t.Fatalf("%s went unnoticed: %d of %d files", kind, n, len(files))
		}
		if whole && *damaged == 0 && err == nil {
			seen["harmless "+kind]++
		}
		seen[kind]++
		f.asm.drop()
	}
	t.Logf("%v", seen)
}

// drive hands the messages over, and holds every file that comes out against
// the originals; it ends at the first break of the chain.
func drive(t *testing.T, f *Feed, msgs []*nats.Msg, files []streamtest.File) (n int, err error) {
	t.Helper()
	for i, m := range msgs {
		file, err := f.handle(t.Context(), delivery{msg: fakeMsg{m: m}, seq: uint64(i + 1), at: time.Unix(1, 0)})
		if err != nil {
			_, gap := errors.AsType[*GapError](err)
			_, fork := errors.AsType[*ForkError](err)
			if !gap && !fork && !errors.Is(err, ErrNoBase) {
				t.Fatalf("message %d: %v", i, err)
			}
			return n, err
		}
		if file == nil {
			continue
		}
		got, err := io.ReadAll(file.Section(t.Context()))
		if err != nil {
			t.Fatal(err)
		}
		want := files[n]
		if !bytes.Equal(got, want.Data) && !samePages(t, got, want.Data) || file.Meta.PrePos() != want.Meta.PrePos() || file.Meta.PostPos() != want.Meta.PostPos() || file.Meta.Full != want.Meta.Full {
			t.Fatalf("message %d: a wrong file was handed out: %s", i, file.Meta.PostPos())
		}
		if err := file.Close(); err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n, nil
}

// samePages reports whether two files hold the same: LZ4 has several ways to
// say the same bytes, and the file checksum is over the pages.
func samePages(t *testing.T, a, b []byte) bool {
	t.Helper()
	pa, pb := pagesOf(a), pagesOf(b)
	return pa != nil && bytes.Equal(pa, pb)
}

func pagesOf(b []byte) (out []byte) {
	dec := ltx.NewDecoder(bytes.NewReader(b))
	if dec.DecodeHeader() != nil {
		return nil
	}
	page := make([]byte, dec.Header().PageSize)
	for {
		var h ltx.PageHeader
		if err := dec.DecodePage(&h, page); err == io.EOF {
			break
		} else if err != nil {
			return nil
		}
		out = append(append(out, byte(h.Pgno>>8), byte(h.Pgno)), page...)
	}
	if dec.Close() != nil {
		return nil
	}
	return out
}

// FuzzHandle feeds two messages of any content: nothing but the file itself
// may come out.
func FuzzHandle(f *testing.F) {
	c := streamtest.NewChain("app", 1)
	file := c.Full(f, 3)
	whole := c.Messages(file, 1<<20)[0]
	half := int(file.Meta.Size)/2 + 1
	f.Add(whole.Data, []byte{}, uint16(0))
	f.Add(file.Data[:half], file.Data[half:], uint16(2))
	f.Fuzz(func(t *testing.T, one, two []byte, parts uint16) {
		feed, _ := offline(t, 2000)
		defer feed.asm.drop()
		meta := file.Meta
		meta.Parts = max(int(parts), 1)
		for i, data := range [][]byte{one, two} {
			meta.Part = min(i+1, meta.Parts)
			m := &nats.Msg{Subject: wire.DB("app").DataSubject(), Header: meta.Header(), Data: data}
			out, err := feed.handle(t.Context(), delivery{msg: fakeMsg{m: m}, seq: uint64(i + 1)})
			if err != nil || out == nil {
				continue
			}
			got, err := io.ReadAll(out.Section(t.Context()))
			if err != nil || !samePages(t, got, file.Data) {
				t.Fatalf("wrong file: %v", err)
			}
			out.Close()
		}
	})
}

func TestLostDeliveryIsSeen(t *testing.T) {
	t.Parallel()
	f, _ := offline(t, 1000)
	deliver := func(consumer, stream uint64) error {
		_, err := f.order(fakeMsg{at: jetstream.SequencePair{Consumer: consumer, Stream: stream}})
		return err
	}
	if err := errors.Join(deliver(1, 10), deliver(2, 14)); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{"hole": deliver(4, 15), "again": deliver(2, 14), "back": deliver(3, 13)} {
		if !errors.Is(err, errResync) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := deliver(3, 15); err != nil {
		t.Fatal(err)
	}
	f.status = make(chan nats.Status, 1)
	f.status <- nats.CONNECTED
	if err := deliver(4, 16); !errors.Is(err, errResync) {
		t.Fatalf("after a reconnect: %v", err)
	}
}

// TestHugeFrameAllocatesNothing: a frame that claims more than a page can
// need is refused before a buffer is made for it.
func TestHugeFrameAllocatesNothing(t *testing.T) { // not parallel: it counts allocations
	c := streamtest.NewChain("app", 1)
	c.Full(t, 3)
	f := c.Step(t, 1)
	data := append(bytes.Clone(f.Data[:ltx.HeaderSize+ltx.PageHeaderSize]), 0, 0x80, 0, 0) // 8 MB
	data = append(data, make([]byte, 16<<20)...)
	var before, after runtime.MemStats
	var v ltxfile.Verifier
	runtime.ReadMemStats(&before)
	err := stream.Verify(&v, bytes.NewReader(data), f.Meta)
	runtime.ReadMemStats(&after)
	if !errors.Is(err, ErrContent) {
		t.Fatalf("got %v", err)
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Fatalf("%d bytes allocated", n)
	}
}

func BenchmarkVerify(b *testing.B) {
	for name, pages := range map[string]int{"2 pages": 2, "64 pages": 64} {
		b.Run(name, func(b *testing.B) {
			c := streamtest.NewChain("app", 1)
			c.PageSize = 4096
			c.Full(b, 64)
			f := c.Step(b, pages)
			var v ltxfile.Verifier
			b.SetBytes(int64(pages) * 4096)
			b.ReportAllocs()
			for b.Loop() {
				if err := stream.Verify(&v, bytes.NewReader(f.Data), f.Meta); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
