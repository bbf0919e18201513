package generations

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/pierrec/lz4/v4"
)

// unpack reads everything, by the way that a restore does.
func unpack(r io.Reader) ([]byte, error) {
	var b bytes.Buffer
	_, err := io.Copy(&b, struct{ io.Reader }{lz4.NewReader(newFrames(r))})
	return b.Bytes(), err
}

// packed compresses with options, for frames that Litestream does not write but
// others could.
func packed(t testing.TB, content []byte, options ...lz4.Option) []byte {
	t.Helper()
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	if err := w.Apply(options...); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func kinds(t testing.TB, content []byte) map[string][]byte {
	return map[string][]byte{
		"as Litestream writes it": packed(t, content),
		"small blocks":            packed(t, content, lz4.BlockSizeOption(lz4.Block64Kb)),
		"sums of blocks":          packed(t, content, lz4.BlockSizeOption(lz4.Block64Kb), lz4.BlockChecksumOption(true)),
		"with its size":           packed(t, content, lz4.SizeOption(uint64(len(content)))),
		"two frames":              append(packed(t, content[:len(content)/2]), packed(t, content[len(content)/2:])...),
	}
}

func compressible(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.IntN(3))
		if i%1000 > 800 {
			b[i] = byte(rng.IntN(256))
		}
	}
	return b
}

func TestFrames(t *testing.T) {
	t.Parallel()
	content := compressible(300_000)
	for name, b := range kinds(t, content) {
		for kind, r := range map[string]io.Reader{"": bytes.NewReader(b), ", byte by byte": iotest.OneByteReader(bytes.NewReader(b)), ", end with data": iotest.DataErrReader(bytes.NewReader(b))} {
			if got, err := unpack(r); err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s%s: %d bytes, %v", name, kind, len(got), err)
			}
		}
	}
	if got, err := unpack(bytes.NewReader(packed(t, nil))); err != nil || len(got) > 0 {
		t.Errorf("a frame of nothing: %d bytes, %v", len(got), err)
	}
}

// TestCutFrames: wherever the bytes end early, it is found. (Read of the decoder alone
// takes an end between two blocks for the end of the data.)
func TestCutFrames(t *testing.T) {
	t.Parallel()
	content := compressible(150_000)
	for name, b := range kinds(t, content) {
		ends := blockEnds(b)
		cuts := slices.Concat(ends, []int{0, 1, 4, 6, 7, 9, 11, 100, len(b) - 8, len(b) - 4, len(b) - 1})
		unnoticed := 0
		for _, n := range cuts {
			if _, err := unpack(bytes.NewReader(b[:n])); err == nil {
				t.Errorf("%s, cut to %d of %d bytes: it passes", name, n, len(b))
			}
			if _, err := io.ReadAll(lz4.NewReader(bytes.NewReader(b[:n]))); err == nil {
				unnoticed++
			}
		}
		if unnoticed < len(ends) {
			t.Errorf("%s: %d of %d cuts pass the decoder alone: is frames needed?", name, unnoticed, len(cuts))
		}
	}
	one := packed(t, content)
	if got, err := unpack(bytes.NewReader(append(bytes.Clone(one), packed(t, content)...)[:len(one)])); err != nil || len(got) != len(content) {
		t.Errorf("the first frame of two: %d bytes, %v", len(got), err)
	}
}

// blockEnds are where the blocks of the first frame end.
func blockEnds(b []byte) (ends []int) {
	at, sums := 7, int(b[4]>>4&1)*4
	if b[4]&hasContentSize != 0 {
		at += 8
	}
	for size := binary.LittleEndian.Uint32(b[at:]); size != 0; size = binary.LittleEndian.Uint32(b[at:]) {
		at += 4 + int(size&^isStored) + sums
		ends = append(ends, at)
	}
	return ends
}

func TestFramesThatAreNone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "x", "hello, world", "SQLite format 3\x00", "\x02\x21\x4c\x18\x00\x00", "\x50\x2a\x4d\x18\x00\x00\x00\x00"} {
		if _, err := unpack(bytes.NewReader([]byte(text))); err == nil {
			t.Errorf("%q passes", text)
		}
	}
	good := packed(t, []byte("hello"))
	for _, more := range []string{"x", "hello, world", string(good[:3]), string(good[:7])} {
		if _, err := unpack(bytes.NewReader(append(bytes.Clone(good), more...))); err == nil {
			t.Errorf("%q behind a frame passes", more)
		}
	}
	if _, err := unpack(iotest.ErrReader(io.ErrClosedPipe)); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("%v", err)
	}
}

// FuzzObject: whatever an object holds, it is read or refused; what is read is what
// the decoder makes of it.
func FuzzObject(f *testing.F) {
	for _, b := range kinds(f, compressible(3000)) {
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	m := makeUp(f, shape{seed: 1, pageSize: 512, generations: 1, indexes: 1, segments: 1, pages: 3})
	for _, p := range m.parts {
		f.Add(pack(f, p.content))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := unpack(bytes.NewReader(b))
		if err != nil {
			return
		}
		want, err := io.ReadAll(lz4.NewReader(bytes.NewReader(b)))
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes, the decoder alone %d, %v", len(got), len(want), err)
		}
		s := newClocked()
		o := Object{Key: "x", Size: int64(len(b))}
		s.put(t, o.Key, b, started)
		for _, read := range []func(*contents) error{
			func(c *contents) error { return readSnapshot(c, Snapshot{Object: o}) },
			func(c *contents) error {
				return readWAL(&walReader{contents: c, segments: []Segment{{Object: o}}}, nil)
			},
		} {
			c := checker{cfg: CheckConfig{Store: s}}
			if err := c.one(t.Context(), []Object{o}, read); err != nil {
				t.Fatal(err)
			}
		}
	})
}
