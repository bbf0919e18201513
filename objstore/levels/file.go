package levels

import (
	"cmp"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore"
)

// Level is how far up a file was merged. Level 0 is the stream, or a folder of
// its tail.
type Level int

// Levels by name. What is between First and Snapshot holds ever longer ranges.
const (
	Stream   Level = 0
	First    Level = 1
	Snapshot Level = 9 // every page, from TXID 1 on
)

// File is one LTX file of an archive, as its key and the listing tell it.
type File struct {
	Level    Level
	Min, Max ltx.TXID // the range, both included; Min is 1 at level Snapshot
	Size     int64    // bytes
	// Timestamp is that of the last transaction, UTC, milliseconds; zero when
	// the listing does not tell. The true one lies in [Timestamp, Timestamp +
	// Coarse].
	Timestamp time.Time
	Coarse    time.Duration
}

// Name is the last segment of the file's key: both TXIDs in hex.
func (f File) Name() string { return ltx.FormatFilename(f.Min, f.Max) }

// IsBase reports whether the file holds a whole database.
func (f File) IsBase() bool { return f.Min == 1 }

// Is reports whether both are the same file: of one level and one range.
func (f File) Is(g File) bool { return f.Level == g.Level && CompareRange(f, g) == 0 }

// CompareRange orders files by Min, then by Max.
func CompareRange(a, b File) int { return cmp.Or(cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max)) }

// Newest is the file that ends last, of several the first one; zero where there is
// none. It need not be the last by Min: two writers can have made some that overlap.
func Newest(files []File) (last File) {
	for _, f := range files {
		if f.Max > last.Max {
			last = f
		}
	}
	return last
}

func (f File) String() string { return fmt.Sprintf("level %d %s-%s", f.Level, f.Min, f.Max) }

// Root is the name of the database whose level folders lie at the archive's URL
// itself and not in a folder below it. Litestream's URLs name such places. No
// stream has a database of that name.
const Root = "."

// CheckDB refuses what cannot be a database's name in an archive: it is one
// segment of a key (see [objstore.CheckKey]), or Root. Names that others gave may
// have characters that those of a stream have not.
func CheckDB(name string) error {
	if name == Root {
		return nil
	}
	if err := objstore.CheckKey(name); err != nil {
		return fmt.Errorf("database name %q: %w", name, err)
	}
	if strings.Contains(name, "/") {
		return fmt.Errorf("database name %q: %w: want one segment of a key, without a slash", name, fs.ErrInvalid)
	}
	return nil
}

// Folder is the key prefix of all that an archive has of a database, with its final
// slash; "" for Root.
func Folder(db string) string {
	if db == Root {
		return ""
	}
	return db + "/"
}

// Layout is how level folders are called below the folder of a database.
type Layout int

const (
	// Decimal is Litestream's layout everywhere but on S3: ltx/<level>/.
	Decimal Layout = iota
	// Hex is Litestream's on S3: <level as four hex digits>/.
	Hex
)

// folder is the key prefix of a level, with its final slash.
func (l Layout) folder(db string, level Level) string {
	if l == Hex {
		return fmt.Sprintf("%s%04x/", Folder(db), int(level))
	}
	return fmt.Sprintf("%sltx/%d/", Folder(db), int(level))
}

// parseKey reads the range out of a key below folder; ok is false for keys that
// are no LTX files of ours or Litestream's.
func parseKey(folder, key string) (lo, hi ltx.TXID, ok bool) {
	name, found := strings.CutPrefix(key, folder)
	if !found {
		return 0, 0, false
	}
	lo, hi, err := ltx.ParseFilename(name)
	return lo, hi, err == nil && lo > 0 && lo <= hi && name == ltx.FormatFilename(lo, hi)
}
