//go:build cgo

package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// naiveSum is the checksum as the file format page states it.
func naiveSum(s Sum, b []byte, order binary.ByteOrder) Sum {
	for i := 0; i < len(b); i += 8 {
		s[0] += order.Uint32(b[i:]) + s[1]
		s[1] += order.Uint32(b[i+4:]) + s[0]
	}
	return s
}

func TestExtendEqualsTheFormatsDefinition(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for n := 0; n <= 512; n += 8 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		from := Sum{r.Uint32(), r.Uint32()}
		if got, want := from.Extend(b, true), naiveSum(from, b, binary.BigEndian); got != want {
			t.Fatalf("big endian, %d bytes: %x, want %x", n, got, want)
		}
		if got, want := from.Extend(b, false), naiveSum(from, b, binary.LittleEndian); got != want {
			t.Fatalf("little endian, %d bytes: %x, want %x", n, got, want)
		}
	}
}

func TestChainFollowsARealWAL(t *testing.T) {
	for _, size := range pageSizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			path, f := newDatabase(t, "go", size)
			f.insert(20, size/2)
			d := openDB(t, path)
			h := header(t, d)
			fh, frames, c := decodeWAL(readFile(t, path+"-wal"))
			if len(frames) < 2 || c != h.Chain() {
				t.Fatalf("chain of %d frames %+v, wal-index says %+v", len(frames), c, h)
			}
			if int(fh.PageSize) != size || frames[len(frames)-1].Commit != h.PageCount {
				t.Fatalf("page size %d, commit %d; wal-index %+v", fh.PageSize, frames[len(frames)-1].Commit, h)
			}
			var raw, again [FileHeaderSize]byte
			if _, err := d.ReadWAL(raw[:], 0); err != nil {
				t.Fatal(err)
			}
			if fh.Encode(again[:]); raw != again {
				t.Fatalf("file header\n%x, want\n%x", again, raw)
			}
		})
	}
}

func TestChainPutEqualsSQLite(t *testing.T) {
	path, f := newDatabase(t, "go", 4096)
	f.insert(30, 3000)
	b := readFile(t, path+"-wal")
	h, frames, _ := decodeWAL(b)
	if again := encodeWAL(h, frames); !bytes.Equal(again, b[:len(again)]) {
		t.Fatal("re-encoded frames differ from SQLite's")
	}
}

func encodeWAL(h FileHeader, frames []frame) []byte {
	b := make([]byte, FileHeaderSize)
	c := StartChain(h, h.Encode(b))
	for _, f := range frames {
		fb := append(make([]byte, FrameHeaderSize), f.page...)
		c.Put(fb, f.FrameHeader)
		b = append(b, fb...)
	}
	return b
}

// TestBigEndianWAL rewrites the WAL of a killed application with big-endian
// checksums. Every SQLite must recover it whole, and go on in that order.
func TestBigEndianWAL(t *testing.T) {
	kinds(t, func(t *testing.T, kind string) {
		for _, size := range pageSizes {
			path, f := newDatabase(t, "go", size)
			f.insert(50, 300)
			want := f.exec("SELECT count(*), sum(length(b)), hex(max(b)) FROM t")
			f.kill()
			h, frames, _ := decodeWAL(readFile(t, path+"-wal"))
			h.BigEndian = true
			must(t, os.WriteFile(path+"-wal", encodeWAL(h, frames), 0o644))
			must(t, os.Remove(path+"-shm"))

			f = startForeign(t, kind, path)
			f.exec("PRAGMA wal_autocheckpoint=0")
			if got := f.exec("SELECT count(*), sum(length(b)), hex(max(b)) FROM t"); got != want {
				t.Fatalf("page size %d: recovered %s, want %s", size, got, want)
			}
			f.intact()
			d := openDB(t, path)
			if hd := header(t, d); !hd.BigEndian || int(hd.MaxFrame) != len(frames) {
				t.Fatalf("header after recovery: %+v, want big endian, %d frames", hd, len(frames))
			}
			f.insert(10, 100) // SQLite goes on in the file's order
			h2, frames2, c := decodeWAL(readFile(t, path+"-wal"))
			if !h2.BigEndian || len(frames2) <= len(frames) || c != header(t, d).Chain() {
				t.Fatalf("what SQLite appended does not chain: %d of %d frames", len(frames2), header(t, d).MaxFrame)
			}
			undo := lockAll(t, d, Write, Ckpt) // and so do we
			page := frames2[len(frames2)-1]
			a, err := d.Begin(uint32(size), false)
			must(t, err)
			must(t, a.Add(page.Pgno, page.Commit, page.page))
			hd, err := a.Commit(page.Commit)
			must(t, err)
			undo()
			if _, frames3, _ := decodeWAL(readFile(t, path+"-wal")); !hd.BigEndian || len(frames3) != len(frames2)+1 {
				t.Fatalf("what we appended does not chain: %d frames, want %d", len(frames3), len(frames2)+1)
			}
			f.intact()
			f.kill()
		}
	})
}

func TestSQLiteCommandReadsBigEndianWAL(t *testing.T) {
	cli, err := exec.LookPath("sqlite3")
	if err != nil {
		t.Skip("no sqlite3 command")
	}
	path, f := newDatabase(t, "go", 4096)
	f.insert(50, 300)
	f.kill()
	h, frames, _ := decodeWAL(readFile(t, path+"-wal"))
	h.BigEndian = true
	must(t, os.WriteFile(path+"-wal", encodeWAL(h, frames), 0o644))
	must(t, os.Remove(path+"-shm"))
	out, err := exec.Command(cli, path, "SELECT count(*) FROM t; PRAGMA integrity_check").CombinedOutput()
	if err != nil || string(out) != "50\nok\n" {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestChainRefusesAFlipInAnyByte(t *testing.T) {
	for _, bigEndian := range []bool{false, true} {
		b := sampleWAL(bigEndian)
		h, sum, err := ParseFileHeader(b)
		must(t, err)
		c := StartChain(h, sum)
		fb := b[FileHeaderSize:][:c.FrameSize()]
		for i := range fb {
			fb[i] ^= 0x40
			if _, err := c.Next(fb); !errors.Is(err, ErrChain) || c.Frame != 0 {
				t.Fatalf("byte %d flipped: %v", i, err)
			}
			fb[i] ^= 0x40
		}
		if _, err := c.Next(fb); err != nil {
			t.Fatal(err)
		}
		var none Chain
		if _, err := none.Next(make([]byte, FrameHeaderSize)); !errors.Is(err, ErrChain) {
			t.Fatalf("the zero chain accepts a frame: %v", err)
		}
	}
}

// sampleWAL is a small valid WAL for the fuzz targets.
func sampleWAL(bigEndian bool) []byte {
	var frames []frame
	for i := range uint32(6) {
		p := bytes.Repeat([]byte{byte(i + 1)}, 512)
		frames = append(frames, frame{FrameHeader{Pgno: i%3 + 1, Commit: i % 2 * 3}, p})
	}
	return encodeWAL(FileHeader{BigEndian: bigEndian, PageSize: 512, Sequence: 3, Salt: Salt{1, 2}}, frames)
}

func FuzzFileHeader(f *testing.F) {
	f.Add(sampleWAL(false)[:FileHeaderSize])
	f.Add(sampleWAL(true)[:FileHeaderSize])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		h, sum, err := ParseFileHeader(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error %v is no ErrFormat", err)
			}
			return
		}
		var again [FileHeaderSize]byte
		if got := h.Encode(again[:]); got != sum || !bytes.Equal(again[:], b[:FileHeaderSize]) {
			t.Fatalf("%x parses as %+v, which encodes as %x", b[:FileHeaderSize], h, again)
		}
	})
}

func FuzzFrame(f *testing.F) {
	w := sampleWAL(true)
	f.Add(true, w[FileHeaderSize:FileHeaderSize+512+FrameHeaderSize])
	f.Add(false, w[FileHeaderSize:FileHeaderSize+512+FrameHeaderSize])
	f.Fuzz(func(t *testing.T, bigEndian bool, b []byte) {
		c := StartChain(FileHeader{BigEndian: bigEndian, PageSize: 512, Salt: Salt{1, 2}}, naiveSum(Sum{}, w[:24], binary.BigEndian))
		b = append(b, make([]byte, max(0, c.FrameSize()-len(b)))...)
		before := c
		h, err := c.Next(b)
		if err != nil {
			if c != before || !errors.Is(err, ErrChain) {
				t.Fatalf("%v moved the chain to %+v", err, c)
			}
			return
		}
		again := bytes.Clone(b[:c.FrameSize()])
		clear(again[:FrameHeaderSize])
		if before.Put(again, h); before != c || !bytes.Equal(again, b[:c.FrameSize()]) {
			t.Fatalf("%x accepted as %+v, which encodes as %x", b[:FrameHeaderSize], h, again[:FrameHeaderSize])
		}
	})
}

// checkPrefix fails unless what is accepted of the mutant is a prefix of what
// was valid before the mutation, or was written by a valid encoder.
func checkPrefix(t *testing.T, b []byte) {
	t.Helper()
	h, frames, c := decodeWAL(b)
	if int(c.Frame) != len(frames) {
		t.Fatalf("%d frames, chain at %d", len(frames), c.Frame)
	}
	if len(frames) == 0 {
		return
	}
	if frames[len(frames)-1].Commit == 0 {
		t.Fatal("the last accepted frame is no commit")
	}
	if again := encodeWAL(h, frames); !bytes.Equal(again, b[:len(again)]) {
		t.Fatal("accepted frames are not a valid WAL")
	}
}

func FuzzWALFile(f *testing.F) {
	f.Add(sampleWAL(false))
	f.Add(sampleWAL(true))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<20 {
			return
		}
		checkPrefix(t, b)
	})
}

// TestMutatedWAL compares what we accept of damaged WALs with what SQLite
// recovers from them.
func TestMutatedWAL(t *testing.T) {
	path, f := newDatabase(t, "go", 512)
	for range 6 {
		f.insert(3, 700)
	}
	f.kill()
	good, main := readFile(t, path+"-wal"), readFile(t, path)
	_, frames, _ := decodeWAL(good)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	for i := range 40 {
		b := mutate(r, good)
		checkPrefix(t, b)
		_, got, c := decodeWAL(b)
		if len(got) > len(frames) {
			t.Fatalf("mutant %d: %d frames of %d", i, len(got), len(frames))
		}
		p := filepath.Join(dir, fmt.Sprintf("m%d.db", i))
		must(t, os.WriteFile(p, main, 0o644))
		must(t, os.WriteFile(p+"-wal", b, 0o644))
		d := openDB(t, p)
		if h := header(t, d); h.MaxFrame != c.Frame || h.MaxFrame > 0 && h.FrameSum != c.Sum {
			t.Fatalf("mutant %d: we accept %d frames, SQLite recovers %d", i, c.Frame, h.MaxFrame)
		}
	}
}

// mutate flips a bit, cuts the end, swaps or repeats two frames.
func mutate(r *rand.Rand, good []byte) []byte {
	b := bytes.Clone(good)
	size := FrameHeaderSize + 512
	n := (len(b) - FileHeaderSize) / size
	at := func(i int) []byte { return b[FileHeaderSize+i*size:][:size] }
	i, j := r.IntN(n), r.IntN(n)
	switch r.IntN(4) {
	case 0:
		b[r.IntN(len(b))] ^= 1 << r.IntN(8)
	case 1:
		b = b[:r.IntN(len(b))]
	case 2:
		x := bytes.Clone(at(i))
		copy(at(i), at(j))
		copy(at(j), x)
	case 3:
		copy(at(i), at(j))
	}
	return b
}
