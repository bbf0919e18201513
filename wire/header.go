package wire

import (
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/superfly/ltx"
)

// Header names. Values are one canonical string each; see Meta and Claim.
const (
	HeaderMinTXID      = "Ltx-Min-Txid"      // 16 lower-case hex digits
	HeaderMaxTXID      = "Ltx-Max-Txid"      // 16 lower-case hex digits
	HeaderTimestamp    = "Ltx-Timestamp"     // RFC 3339, UTC, milliseconds
	HeaderPreChecksum  = "Ltx-Pre-Checksum"  // 16 lower-case hex digits
	HeaderPostChecksum = "Ltx-Post-Checksum" // 16 lower-case hex digits
	HeaderPageSize     = "Ltx-Page-Size"     // decimal, bytes
	HeaderCommit       = "Ltx-Commit"        // decimal, pages
	HeaderSize         = "Ltx-Size"          // decimal, bytes of the whole file
	HeaderWriter       = "Ltx-Writer"        // token
	HeaderEpoch        = "Ltx-Epoch"         // decimal, from 1
	HeaderFull         = "Ltx-Full"          // "1", or absent
	HeaderBase         = "Ltx-Base"          // decimal stream sequence, or absent
	HeaderPart         = "Ltx-Part"          // "i/n", or absent for 1/1
	HeaderHost         = "Ltx-Host"          // printable ASCII (claims)
	HeaderPID          = "Ltx-Pid"           // decimal (claims)
	HeaderPos          = "Ltx-Pos"           // TXID "/" checksum (claims)
	HeaderMsgID        = nats.MsgIdHdr       // see Meta.MsgID
)

// HeaderError names a header field that is missing, appears twice, is not
// canonical, or contradicts another one.
type HeaderError struct {
	Name   string // the header's name
	Value  string // what it held; "" when missing
	Reason string // what is wrong with it
}

func (e *HeaderError) Error() string {
	return fmt.Sprintf("header %s %q: %s", e.Name, e.Value, e.Reason)
}

// fields reads header values and keeps the first fault.
type fields struct {
	h   nats.Header
	err *HeaderError
}

func (f *fields) fail(name, value, reason string) {
	if f.err == nil {
		f.err = &HeaderError{Name: name, Value: value, Reason: reason}
	}
}

// has reports whether the optional header is there.
func (f *fields) has(name string) bool { return len(f.h[name]) > 0 }

// one returns the only value of a required header.
func (f *fields) one(name string) string {
	v := f.h[name]
	switch {
	case len(v) == 1:
		return v[0]
	case len(v) == 0:
		f.fail(name, "", "missing")
	default:
		f.fail(name, v[0], "given more than once")
	}
	return ""
}

func (f *fields) hex(name string) uint64 {
	s := f.one(name)
	if f.err != nil {
		return 0
	}
	v, ok := parseHex(s)
	if !ok {
		f.fail(name, s, "want 16 lower-case hex digits")
	}
	return v
}

// decimal reads an unsigned number in [low, high].
func (f *fields) decimal(name string, low, high uint64) uint64 {
	s := f.one(name)
	if f.err != nil {
		return 0
	}
	v, ok := parseDecimal(s)
	if !ok || v < low || v > high {
		f.fail(name, s, fmt.Sprintf("want a decimal number from %d to %d", low, high))
	}
	return v
}

func (f *fields) token(name string) string {
	s := f.one(name)
	if f.err == nil && !isToken(s) {
		f.fail(name, s, "want 1 to 64 characters of A-Z a-z 0-9 _ -")
	}
	return s
}

func (f *fields) timestamp(name string) time.Time {
	s := f.one(name)
	if f.err != nil {
		return time.Time{}
	}
	t, err := time.Parse(ltx.RFC3339Milli, s)
	if err != nil || ltx.FormatTimestamp(t) != s {
		f.fail(name, s, "want RFC 3339 in UTC with milliseconds")
	}
	return t.UTC()
}

// parseHex reads exactly 16 lower-case hex digits.
func parseHex(s string) (v uint64, ok bool) {
	if len(s) != 16 {
		return 0, false
	}
	for i := range len(s) {
		d := hexDigit(s[i])
		if d > 15 {
			return 0, false
		}
		v = v<<4 | uint64(d)
	}
	return v, true
}

func hexDigit(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	}
	return 0xff
}

// parseDecimal reads a number without sign and without leading zeros.
func parseDecimal(s string) (uint64, bool) {
	if s == "" || s[0] == '+' || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	v, err := strconv.ParseUint(s, 10, 64)
	return v, err == nil
}

func formatDecimal(v uint64) string { return strconv.FormatUint(v, 10) }

func formatHex(v uint64) string { return string(appendHex(make([]byte, 0, 16), v)) }

// appendHex appends v as exactly 16 lower-case hex digits.
func appendHex(b []byte, v uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[v>>shift&15])
	}
	return b
}
