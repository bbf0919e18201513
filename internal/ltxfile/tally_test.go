package ltxfile

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/superfly/ltx"
)

// tallied reads the frames of a file in random order.
func tallied(rng *rand.Rand, b []byte) error {
	hdr, err := ParseHeader(b[:ltx.HeaderSize])
	if err != nil {
		return err
	}
	start, err := IndexStart(b[len(b)-TailSize:], int64(len(b)))
	if err != nil {
		return err
	}
	t := NewTally(b[:ltx.HeaderSize], hdr.PageSize)
	var entries []Entry
	if err := ReadIndex(bytes.NewReader(b[start:len(b)-TailSize]), start, hdr.PageSize, hdr.Commit, func(e Entry) {
		t.Expect(e)
		entries = append(entries, e)
	}); err != nil {
		return err
	}
	page := make([]byte, hdr.PageSize)
	for _, i := range rng.Perm(len(entries)) {
		e := entries[i]
		f, err := ParseFrame(b[e.Offset:e.Offset+e.Size], e.Pgno)
		if err != nil {
			return err
		}
		if err := f.Decode(page); err != nil {
			return err
		}
		t.Read(i, f, DataCRC(page))
	}
	var trailer ltx.Trailer
	if err := trailer.UnmarshalBinary(b[len(b)-ltx.TrailerSize:]); err != nil {
		return err
	}
	if err := trailer.Validate(hdr); err != nil {
		return damaged("%w", err)
	}
	return t.Check(trailer)
}

// TestTally: frames in any order prove what Verify does, but for the end mark between
// the last frame and the index, which nobody reads here.
func TestTally(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 3))
	for size := uint32(512); size <= 65536; size *= 2 {
		b := encode(t, rng, size, 9)
		if err := tallied(rng, b); err != nil {
			t.Fatalf("pages of %d bytes: %v", size, err)
		}
	}
	b := encode(t, rng, 512, 9)
	start, _ := IndexStart(b[len(b)-TailSize:], int64(len(b)))
	for at := range b {
		bad := bytes.Clone(b)
		bad[at] ^= 1 << rng.IntN(8)
		_, want := Verify(bytes.NewReader(bad)) // a block can be changed and hold the same page
		if int64(at) >= start-ltx.PageHeaderSize && int64(at) < start {
			want = nil
		}
		if err := tallied(rng, bad); (err == nil) != (want == nil) || err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("byte %d of %d changed: %v, want %v", at, len(b), err, want)
		}
	}
}
