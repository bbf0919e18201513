package ltxfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"
	"github.com/superfly/ltx"
)

// firstFrame returns the first frame of a framed file whose first page compresses,
// or does not.
func firstFrame(t *testing.T, plain bool) []byte {
	t.Helper()
	var buf bytes.Buffer
	page := bytes.Repeat([]byte("page"), 128)
	if plain {
		rng := rand.New(rand.NewPCG(6, 6))
		for i := range page {
			page[i] = byte(rng.Uint32())
		}
	}
	enc, err := ltx.NewEncoder(&buf)
	err = errors.Join(err, enc.EncodeHeader(ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: 512, Commit: 3, MinTXID: 2, MaxTXID: 2}),
		enc.EncodePage(ltx.PageHeader{Pgno: 3}, page), enc.Close())
	if err != nil {
		t.Fatal(err)
	}
	b := forms(t, buf.Bytes())["framed"]
	s, err := NewScanner(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Next()
	if err != nil {
		t.Fatal(err)
	}
	if got := make([]byte, 512); f.Decode(got) != nil || !bytes.Equal(got, page) {
		t.Fatal("the frame does not decode to the page")
	}
	return bytes.Clone(f.Raw)
}

// decodeAlone reads a frame by itself, as a restore does.
func decodeAlone(raw []byte) error {
	f, err := ParseFrame(raw, 3)
	if err != nil {
		return err
	}
	return f.Decode(make([]byte, 512))
}

// scanAlone reads it as the only page of a file, up to the page index.
func scanAlone(raw []byte) error {
	hdr := ltx.Header{Flags: ltx.HeaderFlagNoChecksum, PageSize: 512, Commit: 3, MinTXID: 2, MaxTXID: 2}
	b, err := hdr.MarshalBinary()
	if err != nil {
		return err
	}
	s, err := NewScanner(io.MultiReader(bytes.NewReader(b), bytes.NewReader(raw), bytes.NewReader(make([]byte, ltx.PageHeaderSize))))
	if err != nil {
		return err
	}
	f, err := s.Next()
	if err != nil {
		return err
	}
	if err := f.Decode(make([]byte, 512)); err != nil {
		return err
	}
	if _, err := s.Next(); err != io.EOF {
		return err
	}
	return nil
}

func TestFrameFaults(t *testing.T) {
	t.Parallel()
	le := binary.LittleEndian
	for _, plain := range []bool{false, true} {
		if err := errors.Join(decodeAlone(firstFrame(t, plain)), scanAlone(firstFrame(t, plain))); err != nil {
			t.Fatalf("no fault: %v", err)
		}
	}
	for name, fault := range map[string]func(b []byte) []byte{
		"unknown flags":       func(b []byte) []byte { b[5] = 2; return b },
		"flags of a sized":    func(b []byte) []byte { b[5] = 1; return b },
		"other magic number":  func(b []byte) []byte { b[6]++; return b },
		"other settings":      func(b []byte) []byte { b[10] &^= 4; return b },
		"empty block":         func(b []byte) []byte { le.PutUint32(b[13:], 0); return b },
		"longer block":        func(b []byte) []byte { le.PutUint32(b[13:], le.Uint32(b[13:])+1); return b },
		"shorter block":       func(b []byte) []byte { le.PutUint32(b[13:], le.Uint32(b[13:])-1); return b },
		"block of a gigabyte": func(b []byte) []byte { le.PutUint32(b[13:], 1<<30); return b },
		"plain or not":        func(b []byte) []byte { b[16] ^= 0x80; return b },
		"another block":       func(b []byte) []byte { b[len(b)-8] = 1; return b },
		"content checksum":    func(b []byte) []byte { b[len(b)-1]++; return b },
		"cut in the head":     func(b []byte) []byte { return b[:9] },
		"cut in the start":    func(b []byte) []byte { return b[:16] },
		"cut in the block":    func(b []byte) []byte { return b[:20] },
		"cut in the tail":     func(b []byte) []byte { return b[:len(b)-1] },
		"no flags":            func(b []byte) []byte { return append(b[:4:4], b[6:]...) },
		"a longer page":       func(b []byte) []byte { return plainOf(b, make([]byte, 528)) },
		"a shorter page":      func(b []byte) []byte { return plainOf(b, make([]byte, 496)) },
		"sized, longer":       func(b []byte) []byte { return sizedOf(b, make([]byte, 528)) },
		"sized, shorter":      func(b []byte) []byte { return sizedOf(b, make([]byte, 496)) },
		"sized, empty":        func(b []byte) []byte { return append(b[:5:5], 1, 0, 0, 0, 0) },
	} {
		for _, plain := range []bool{false, true} {
			if err := decodeAlone(fault(firstFrame(t, plain))); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s, plain %v: %v", name, plain, err)
			}
			if err := scanAlone(fault(firstFrame(t, plain))); !errors.Is(err, ErrDamaged) {
				t.Errorf("%s, plain %v, in a file: %v", name, plain, err)
			}
		}
	}
}

// plainOf makes the frame one of an uncompressed block that is not a page of 512
// bytes, with the checksum of one that is.
func plainOf(b, block []byte) []byte {
	b = append(b[:13:13], 0, 0, 0, 0)
	binary.LittleEndian.PutUint32(b[13:], uint32(len(block))|plainBlock)
	b = append(append(b, block...), 0, 0, 0, 0)
	return binary.LittleEndian.AppendUint32(b, pageHash(make([]byte, 512)))
}

// sizedOf makes it a frame of the other form.
func sizedOf(b, page []byte) []byte {
	block := make([]byte, lz4.CompressBlockBound(len(page)))
	n, _ := lz4.CompressBlock(page, block, nil) // never fails with such room
	b = append(b[:5:5], byte(ltx.PageHeaderFlagSize))
	return append(binary.BigEndian.AppendUint32(b, uint32(n)), block[:n]...)
}

// TestBlockOfMoreThan64KiB: the page would fit, superfly/ltx refuses the frame.
func TestBlockOfMoreThan64KiB(t *testing.T) {
	t.Parallel()
	page := make([]byte, 65536)
	block := append([]byte{0xf0}, bytes.Repeat([]byte{255}, (len(page)-15)/255)...) // of literals alone
	block = append(append(block, byte((len(page)-15)%255)), page...)
	raw := append([]byte{0, 0, 0, 3, 0, 0}, lz4Start...)
	raw = append(binary.LittleEndian.AppendUint32(raw, uint32(len(block))), block...)
	raw = binary.LittleEndian.AppendUint32(append(raw, 0, 0, 0, 0), pageHash(page))
	if err := (Frame{Pgno: 3, Raw: raw}).Decode(make([]byte, len(page))); err != nil {
		t.Fatalf("the block is not that of the page: %v", err)
	}
	if _, _, err := ltx.DecodePageData(raw); err == nil {
		t.Error("superfly/ltx reads it")
	}
	if _, err := ParseFrame(raw, 3); !errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

// TestOlderFormats: what came before superfly/ltx v0.5.0 says so.
func TestOlderFormats(t *testing.T) {
	t.Parallel()
	raw := firstFrame(t, false)
	if err := decodeAlone(append(raw[:4:4], raw[6:]...)); err == nil || !strings.Contains(err.Error(), tooOld) {
		t.Errorf("pages without flags: %v", err)
	}
	b := encode(t, rand.New(rand.NewPCG(7, 7)), 512, 1)
	b[7] = compressedFlag
	if _, err := NewScanner(bytes.NewReader(b)); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tooOld) {
		t.Errorf("header of the first format: %v", err)
	}
}
