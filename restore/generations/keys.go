package generations

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/ltxstream/ltxstream/objstore/levels"
)

// folder is the key prefix of the generations of a database, with its final
// slash; the layout is the same on every storage.
func folder(db string) string { return levels.Folder(db) + "generations/" }

// Index numbers the WALs of a generation: SQLite restarts its WAL, and the next
// index begins.
type Index uint32

// String is the index as names have it: 8 hex digits.
func (i Index) String() string { return fmt.Sprintf("%08x", uint32(i)) }

// MarshalText is String.
func (i Index) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText is ParseIndex.
func (i *Index) UnmarshalText(b []byte) (err error) {
	*i, err = ParseIndex(string(b))
	return err
}

// ParseIndex reads an index in hex, at most 7fffffff; zeros in front may be left
// out.
func ParseIndex(text string) (Index, error) {
	n, err := strconv.ParseUint(text, 16, 31)
	if err != nil || len(text) > 8 {
		return 0, fmt.Errorf("WAL index %q: want up to 8 hex digits", text)
	}
	return Index(n), nil
}

// IsName reports whether a generation can be called so: 16 hex digits.
func IsName(text string) bool { return nameForm.MatchString(text) }

var (
	nameForm     = regexp.MustCompile(`^[0-9a-f]{16}$`)
	snapshotForm = regexp.MustCompile(`^([0-9a-f]{16})/snapshots/([0-9a-f]{8})\.snapshot\.lz4$`)
	segmentForm  = regexp.MustCompile(`^([0-9a-f]{16})/wal/([0-9a-f]{8})_([0-9a-f]{8,16})\.wal\.lz4$`)
)

// IsKey reports whether the rest of a key, behind the name of a database and a
// slash, is that of a snapshot or a WAL segment.
func IsKey(rest string) bool {
	name, ok := strings.CutPrefix(rest, folder(levels.Root))
	return ok && (snapshotForm.MatchString(name) || segmentForm.MatchString(name))
}

// parseSnapshot reads the key of a snapshot behind the folder.
func parseSnapshot(name string) (generation string, index Index, ok bool) {
	m := snapshotForm.FindStringSubmatch(name)
	if m == nil {
		return "", 0, false
	}
	index, err := ParseIndex(m[2])
	return m[1], index, err == nil
}

// parseSegment reads the key of a WAL segment behind the folder. Offsets of more
// than 32 bits have more digits, and no zeros in front.
func parseSegment(name string) (generation string, index Index, offset int64, ok bool) {
	m := segmentForm.FindStringSubmatch(name)
	if m == nil || len(m[3]) > 8 && m[3][0] == '0' {
		return "", 0, 0, false
	}
	index, err := ParseIndex(m[2])
	offset, errOffset := strconv.ParseInt(m[3], 16, 64)
	return m[1], index, offset, err == nil && errOffset == nil
}
