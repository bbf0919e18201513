package tree

import (
	"crypto/rand"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
)

const (
	tempPrefix  = ".tmp-"
	metaSuffix  = ".meta"
	claimSuffix = ".claim"

	// maxSegment leaves room for what a hidden name adds, in the 255 bytes that
	// file systems give.
	maxSegment = 200
)

// tempName is a new name; it tells when it was made.
func tempName(now time.Time) string {
	return fmt.Sprintf("%s%x-%s", tempPrefix, now.Unix(), rand.Text())
}

func isTemp(base string) bool { return strings.HasPrefix(base, tempPrefix) }

// tempTime is when a temporary was made.
func tempTime(name string) (time.Time, bool) {
	hex, _, ok := strings.Cut(strings.TrimPrefix(name, tempPrefix), "-")
	sec, err := strconv.ParseInt(hex, 16, 64)
	return time.Unix(sec, 0), ok && err == nil
}

// metaPath is where the metadata of the object at name is, as long as it has
// that size and modification time. Seconds: finer times are not kept everywhere.
func metaPath(name string, size int64, mtime time.Time) string {
	dir, base := path.Split(name)
	return fmt.Sprintf("%s.%s.%d-%d%s", dir, base, size, mtime.Unix(), metaSuffix)
}

// metaOwner is the base name of the object that a hidden name belongs to.
func metaOwner(hidden string) (base string, ok bool) {
	rest, ok := strings.CutSuffix(hidden[1:], metaSuffix)
	i := strings.LastIndexByte(rest, '.')
	if !ok || i < 0 {
		return "", false
	}
	return rest[:i], true
}

func claimPath(name string) string {
	dir, base := path.Split(name)
	return dir + "." + base + claimSuffix
}

// checkKey refuses keys that cannot be file names.
func checkKey(key string) error {
	if err := objstore.CheckKey(key); err != nil {
		return err
	}
	for segment := range strings.SplitSeq(key, "/") {
		if len(segment) > maxSegment {
			return fmt.Errorf("%w: key %q has a segment of %d bytes, file names may have %d", fs.ErrInvalid, key, len(segment), maxSegment)
		}
	}
	return nil
}
