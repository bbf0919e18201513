package sftp

import (
	"bytes"
	"io"
	"testing"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/testenv/storage"
)

func BenchmarkOpenSSH(b *testing.B) {
	d := storage.StartSSHD(b)
	s := openClosed(b, sshdConfig(d, b.TempDir()))
	body := make([]byte, 64<<20)
	put := func() error {
		_, err := s.Put(b.Context(), "x.ltx", bytes.NewReader(body), objstore.PutOptions{Timestamp: at})
		return err
	}
	b.Run("put 64 MiB", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			if err := put(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("get 64 MiB", func(b *testing.B) {
		if err := put(); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(body)))
		for b.Loop() {
			r, err := s.Get(b.Context(), "x.ltx", 0, -1)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, r); err != nil || n != int64(len(body)) {
				b.Fatal(n, err)
			}
			if err := r.Close(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
