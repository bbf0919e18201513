package wire

import (
	"math"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/superfly/ltx"
)

// Claim is a publisher's announcement that from here on it alone writes the
// database: a message without a body on the database's epoch subject.
type Claim struct {
	Epoch  uint64    // the previous claim's + 1, from 1
	Writer string    // random id of the publisher's state directory, a token
	Host   string    // for people; Header replaces what is not printable ASCII by "?"
	PID    int       // for people
	Pos    ltx.Pos   // where the publisher goes on; zero before the first file
	Time   time.Time // UTC, milliseconds
}

const maxHostLen = 255

// Header returns the message headers.
func (c Claim) Header() nats.Header {
	return nats.Header{
		HeaderEpoch:     {formatDecimal(c.Epoch)},
		HeaderWriter:    {c.Writer},
		HeaderHost:      {cleanHost(c.Host)},
		HeaderPID:       {formatDecimal(uint64(c.PID))},
		HeaderPos:       {c.Pos.String()},
		HeaderTimestamp: {ltx.FormatTimestamp(c.Time)},
	}
}

// ParseClaim reads the headers of a claim and validates every field. Headers
// it does not know are ignored. The error is a [*HeaderError].
func ParseClaim(h nats.Header) (Claim, error) {
	f := fields{h: h}
	c := Claim{
		Epoch:  f.decimal(HeaderEpoch, 1, math.MaxUint64),
		Writer: f.token(HeaderWriter),
		Host:   f.host(),
		PID:    int(f.decimal(HeaderPID, 0, math.MaxInt32)),
		Pos:    f.pos(),
		Time:   f.timestamp(HeaderTimestamp),
	}
	if f.err != nil {
		return Claim{}, f.err
	}
	return c, nil
}

func (f *fields) host() string {
	s := f.one(HeaderHost)
	if f.err == nil && s != cleanHost(s) {
		f.fail(HeaderHost, s, "want up to 255 printable ASCII characters without spaces")
	}
	return s
}

// pos reads TXID "/" checksum: both zero, or both set.
func (f *fields) pos() ltx.Pos {
	s := f.one(HeaderPos)
	if f.err != nil {
		return ltx.Pos{}
	}
	if len(s) == 33 && s[16] == '/' {
		txid, ok1 := parseHex(s[:16])
		sum, ok2 := parseHex(s[17:])
		pos := ltx.NewPos(ltx.TXID(txid), ltx.Checksum(sum))
		if ok1 && ok2 && (pos.IsZero() || txid != 0 && pos.PostApplyChecksum&ltx.ChecksumFlag != 0) {
			return pos
		}
	}
	f.fail(HeaderPos, s, "want TXID/checksum, both zero or both set")
	return ltx.Pos{}
}

// cleanHost makes a host name safe for a header line: never empty.
func cleanHost(s string) string {
	if s == "" {
		return "?"
	}
	b := []byte(s[:min(len(s), maxHostLen)])
	for i, c := range b {
		if c <= ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
