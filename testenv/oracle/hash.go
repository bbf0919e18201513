package oracle

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"math"
)

// Logical returns a hash of what the database says, however its pages are laid out: encoding, user_version, application_id,
// the schema without root pages, and all rows with their storage classes.
func (s *Snapshot) Logical(ctx context.Context) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s %d %d\n", s.Header.Encoding, s.Header.UserVersion, s.Header.ApplicationID)
	for _, o := range s.Schema {
		fmt.Fprintf(h, "%q %q %q %q\n", o.Type, o.Name, o.Table, o.SQL)
	}
	tables, err := s.tables(ctx)
	if err != nil {
		return "", err
	}
	for _, t := range tables {
		fmt.Fprintf(h, "table %q\n", t.name)
		if err := s.hashRows(ctx, h, t); err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (s *Snapshot) hashRows(ctx context.Context, h hash.Hash, t table) error {
	c, err := s.cursor(ctx, t)
	if err != nil {
		return err
	}
	defer c.close()
	var buf []byte
	for {
		row, err := c.next()
		if err != nil || row == nil {
			return err
		}
		buf = append(buf[:0], 'R')
		for _, v := range row {
			buf = appendValue(buf, v)
		}
		h.Write(buf)
	}
}

// appendValue frames each value with its storage class and length, so that no two rows read alike.
func appendValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, 'n')
	case int64:
		return binary.BigEndian.AppendUint64(append(b, 'i'), uint64(v))
	case float64:
		return binary.BigEndian.AppendUint64(append(b, 'r'), math.Float64bits(v))
	case string:
		return append(binary.BigEndian.AppendUint64(append(b, 't'), uint64(len(v))), v...)
	case []byte:
		return append(binary.BigEndian.AppendUint64(append(b, 'b'), uint64(len(v))), v...)
	default:
		panic(fmt.Sprintf("oracle: a value of type %T from the driver", v))
	}
}
