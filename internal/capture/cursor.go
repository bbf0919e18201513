package capture

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"

	"github.com/ltxstream/ltxstream/internal/wal"
	"github.com/superfly/ltx"
)

// A place is a position in the WAL of one database file, and the transaction
// that it stands for. The running checksum tells that the frames up to there
// are still the ones that were captured: after a power loss a WAL goes on from
// an older commit under the same salts. It is zero at frame 0.
type place struct {
	file  wal.FileID
	salt  wal.Salt
	frame uint32
	sum   wal.Sum
	txid  ltx.TXID
}

func placeAt(file wal.FileID, chain wal.Chain, txid ltx.TXID) place {
	p := place{file: file, salt: chain.Salt, frame: chain.Frame, sum: chain.Sum, txid: txid}
	if p.frame == 0 {
		p.sum = wal.Sum{}
	}
	return p
}

const placeSize = 56

func (p place) encode(b *[placeSize]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], p.file.Dev)
	le.PutUint64(b[8:], p.file.Inode)
	le.PutUint32(b[16:], p.salt[0])
	le.PutUint32(b[20:], p.salt[1])
	le.PutUint32(b[24:], p.frame)
	le.PutUint32(b[28:], p.sum[0])
	le.PutUint32(b[32:], p.sum[1])
	le.PutUint64(b[36:], uint64(p.txid))
	le.PutUint32(b[44:], 0)
	le.PutUint64(b[48:], uint64(crc32.ChecksumIEEE(b[:48])))
}

// parsePlace decodes a place; ok is false where there is none.
func parsePlace(b []byte) (p place, ok bool) {
	le := binary.LittleEndian
	if len(b) < placeSize || le.Uint64(b[48:]) != uint64(crc32.ChecksumIEEE(b[:48])) {
		return place{}, false
	}
	p = place{
		file:  wal.FileID{Dev: le.Uint64(b[0:]), Inode: le.Uint64(b[8:])},
		salt:  wal.Salt{le.Uint32(b[16:]), le.Uint32(b[20:])},
		frame: le.Uint32(b[24:]),
		sum:   wal.Sum{le.Uint32(b[28:]), le.Uint32(b[32:])},
		txid:  ltx.TXID(le.Uint64(b[36:])),
	}
	return p, p.txid != 0
}

// cursor is the file that keeps the place of the newest transaction. It is not
// synced.
type cursor struct{ f *os.File }

func openCursor(path string) (cursor, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	return cursor{f}, err
}

func (c cursor) close() error {
	if c.f == nil {
		return nil
	}
	return c.f.Close()
}

func (c cursor) save(p place) error {
	var b [placeSize]byte
	p.encode(&b)
	if _, err := c.f.WriteAt(b[:], 0); err != nil {
		return fmt.Errorf("write cursor: %w", err)
	}
	return nil
}

// load returns the place, where it is readable.
func (c cursor) load() (place, bool) {
	var b [placeSize]byte
	n, _ := c.f.ReadAt(b[:], 0) // a short file holds none
	return parsePlace(b[:n])
}
