package wire

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/superfly/ltx"
)

// Meta is what the headers of one data message say: the position step of one
// level-0 LTX file, where it came from, and which part of it the message
// carries.
type Meta struct {
	// DB is the database. It travels inside the message id, so that equal
	// files of two databases in one stream are not taken for duplicates.
	// Header needs it; MetaOf leaves it to the caller.
	DB DB

	Min, Max  ltx.TXID     // equal in level-0 files, from 1
	Timestamp time.Time    // of the LTX header, UTC, milliseconds
	Pre, Post ltx.Checksum // of the database before and after; Pre is 0 at TXID 1
	PageSize  uint32       // bytes
	Commit    uint32       // pages of the database afterwards
	Size      int64        // bytes of the whole LTX file

	Writer string // random id of the publisher's state directory, a token
	Epoch  uint64 // the claim it was written under, from 1

	// Full marks a file that holds every page 1..Commit but the lock page,
	// and therefore applies on any base.
	Full bool
	// Base is the stream sequence of the first message of the newest full
	// file before this one; 0: this is the newest one, or it is not known.
	Base uint64

	Part, Parts int // 1-based; 1/1 when the file is one message
}

// MetaOf returns what an LTX file says of itself. DB, Writer, Epoch and Base
// are the caller's to add, and so is Full for a full file after the first.
func MetaOf(h ltx.Header, t ltx.Trailer, size int64) Meta {
	return Meta{
		Min:       h.MinTXID,
		Max:       h.MaxTXID,
		Timestamp: time.UnixMilli(h.Timestamp).UTC(),
		Pre:       h.PreApplyChecksum,
		Post:      t.PostApplyChecksum,
		PageSize:  h.PageSize,
		Commit:    h.Commit,
		Size:      size,
		Full:      h.IsSnapshot(),
		Part:      1,
		Parts:     1,
	}
}

// PrePos is the position the file applies to (unless it is Full).
func (m Meta) PrePos() ltx.Pos { return ltx.NewPos(m.Min-1, m.Pre) }

// PostPos is the position after the file.
func (m Meta) PostPos() ltx.Pos { return ltx.NewPos(m.Max, m.Post) }

// MsgID is the id by which the server drops a message sent twice: database,
// epoch, range, checksum afterwards, part. Dots separate: names contain none.
// The epoch is in it so that a publisher that begins a file again after a new
// claim is not half swallowed as a duplicate of its first try.
func (m Meta) MsgID() string {
	b := make([]byte, 0, len(m.DB)+5+4*16+20)
	b = append(append(b, m.DB...), '.')
	b = append(strconv.AppendUint(b, m.Epoch, 10), '.')
	b = append(appendHex(b, uint64(m.Min)), '.')
	b = append(appendHex(b, uint64(m.Max)), '.')
	b = append(appendHex(b, uint64(m.Post)), '.')
	return string(strconv.AppendInt(b, int64(max(m.Part, 1)), 10))
}

// Header returns the message headers. A Meta made by hand must hold what
// ParseMeta asks for; Header does not check.
func (m Meta) Header() nats.Header {
	h := nats.Header{
		HeaderMinTXID:      {formatHex(uint64(m.Min))},
		HeaderMaxTXID:      {formatHex(uint64(m.Max))},
		HeaderTimestamp:    {ltx.FormatTimestamp(m.Timestamp)},
		HeaderPreChecksum:  {formatHex(uint64(m.Pre))},
		HeaderPostChecksum: {formatHex(uint64(m.Post))},
		HeaderPageSize:     {formatDecimal(uint64(m.PageSize))},
		HeaderCommit:       {formatDecimal(uint64(m.Commit))},
		HeaderSize:         {formatDecimal(uint64(m.Size))},
		HeaderWriter:       {m.Writer},
		HeaderEpoch:        {formatDecimal(m.Epoch)},
		HeaderMsgID:        {m.MsgID()},
	}
	if m.Full {
		h[HeaderFull] = []string{"1"}
	}
	if m.Base != 0 {
		h[HeaderBase] = []string{formatDecimal(m.Base)}
	}
	if m.Parts > 1 {
		h[HeaderPart] = []string{formatPart(m.Part, m.Parts)}
	}
	return h
}

// ParseMeta reads the headers of a data message and validates every field,
// and the fields against each other. Headers it does not know are ignored.
// The error is a [*HeaderError].
func ParseMeta(h nats.Header) (Meta, error) {
	f := fields{h: h}
	m := Meta{
		Min:       ltx.TXID(f.hex(HeaderMinTXID)),
		Max:       ltx.TXID(f.hex(HeaderMaxTXID)),
		Timestamp: f.timestamp(HeaderTimestamp),
		Pre:       ltx.Checksum(f.hex(HeaderPreChecksum)),
		Post:      ltx.Checksum(f.hex(HeaderPostChecksum)),
		PageSize:  uint32(f.decimal(HeaderPageSize, 512, ltx.MaxPageSize)),
		Commit:    uint32(f.decimal(HeaderCommit, 1, math.MaxUint32)),
		Size:      int64(f.decimal(HeaderSize, MinFileSize, math.MaxInt64)),
		Writer:    f.token(HeaderWriter),
		Epoch:     f.decimal(HeaderEpoch, 1, math.MaxUint64),
	}
	f.optional(&m)
	f.consistent(&m)
	if f.err != nil {
		return Meta{}, f.err
	}
	return m, nil
}

// MinFileSize is the least size in bytes of anything that can be an LTX file.
const MinFileSize = ltx.HeaderSize + ltx.PageHeaderSize + ltx.TrailerSize

func (f *fields) optional(m *Meta) {
	m.Part, m.Parts = 1, 1
	if f.has(HeaderFull) {
		m.Full = true
		if v := f.one(HeaderFull); v != "1" {
			f.fail(HeaderFull, v, `want "1"`)
		}
	}
	if f.has(HeaderBase) {
		m.Base = f.decimal(HeaderBase, 1, math.MaxUint64)
	}
	if f.has(HeaderPart) {
		m.Part, m.Parts = f.part()
	}
}

// consistent holds the fields against each other, as the LTX format does.
func (f *fields) consistent(m *Meta) {
	if f.err != nil {
		return
	}
	switch {
	case m.Min == 0:
		f.fail(HeaderMinTXID, m.Min.String(), "want at least 1")
	case m.Max != m.Min:
		f.fail(HeaderMaxTXID, m.Max.String(), "want one transaction at level 0")
	case !ltx.IsValidPageSize(m.PageSize):
		f.fail(HeaderPageSize, formatDecimal(uint64(m.PageSize)), "want a power of two")
	case m.Post&ltx.ChecksumFlag == 0:
		f.fail(HeaderPostChecksum, m.Post.String(), "want the highest bit set")
	case m.Min == 1 && m.Pre != 0:
		f.fail(HeaderPreChecksum, m.Pre.String(), "want 0 at the first transaction")
	case m.Min > 1 && m.Pre&ltx.ChecksumFlag == 0:
		f.fail(HeaderPreChecksum, m.Pre.String(), "want the highest bit set")
	case m.Min == 1 && !m.Full:
		f.fail(HeaderFull, "", "want a full file at the first transaction")
	case m.Size < int64(m.Parts):
		f.fail(HeaderPart, formatPart(m.Part, m.Parts), "more parts than bytes")
	default:
		f.messageID(m)
	}
}

// messageID takes the database from the message id and holds the rest of it
// against the other headers.
func (f *fields) messageID(m *Meta) {
	id := f.one(HeaderMsgID)
	name, _, _ := strings.Cut(id, ".")
	m.DB = DB(name)
	if f.err == nil && (!isToken(name) || m.MsgID() != id) {
		f.fail(HeaderMsgID, id, "does not fit the other headers")
	}
}
