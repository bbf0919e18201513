package ltxfile

import (
	"github.com/ltxstream/ltxstream/internal/crc64iso"
	"math/rand/v2"
	"testing"
)

func TestShift(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(51, 0))
	for size := uint32(512); size <= 65536; size *= 2 {
		b := make([]byte, size)
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		x, y := rnd.Uint64(), rnd.Uint64()
		want := crc64iso.Update(x, b)
		if got := crc64iso.Update(y, b) ^ ShiftOf(size).Apply(x^y); got != want {
			t.Errorf("%d bytes: %x, want %x", size, got, want)
		}
	}
}
