package crc64iso

import (
	"fmt"
	"hash/crc64"
	"math/rand/v2"
	"testing"
)

func check(t *testing.T, crc uint64, p []byte) {
	t.Helper()
	if got, want := Update(crc, p), crc64.Update(crc, table, p); got != want {
		t.Fatalf("CRC %x, %d bytes: %x, want %x", crc, len(p), got, want)
	}
}

// TestUpdate holds every length, alignment and state that takes another path
// against the standard library.
func TestUpdate(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	buf := make([]byte, 70000)
	for i := range buf {
		buf[i] = byte(rng.Uint32())
	}
	for n := range 1100 {
		for at := range 17 {
			check(t, rng.Uint64(), buf[at:at+n])
		}
	}
	for n := 512; n <= 65536; n *= 2 {
		for _, crc := range []uint64{0, 1, 1 << 63, ^uint64(0), rng.Uint64()} {
			check(t, crc, buf[:n])
			check(t, crc, make([]byte, n))
		}
	}
	for range 2000 {
		n := rng.IntN(len(buf))
		check(t, rng.Uint64(), buf[rng.IntN(len(buf)-n):][:n])
	}
	if !canFold {
		t.Log("this processor cannot fold")
	}
}

func FuzzUpdate(f *testing.F) {
	f.Add(uint64(0), []byte("123456789"))
	f.Add(^uint64(0), make([]byte, 300))
	f.Fuzz(func(t *testing.T, crc uint64, p []byte) { check(t, crc, p) })
}

func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{512, 4096, 65536} {
		p := make([]byte, n)
		for name, update := range map[string]func(uint64, []byte) uint64{
			"folded": Update, "standard": func(crc uint64, p []byte) uint64 { return crc64.Update(crc, table, p) },
		} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.SetBytes(int64(n))
				var crc uint64
				for b.Loop() {
					crc = update(crc, p)
				}
			})
		}
	}
}
