package natsobj

import (
	"encoding/base64"
	"strings"

	"github.com/ltxstream/ltxstream/objstore"
)

// Subjects of a bucket. The first two are the object store's own. The names
// and the mark share the chunks' half of the bucket, where readers ask for one
// object's identifier and never for all; see DESIGN.md.
//
//	$O.<bucket>.M.<name in base64url>         what is known of an object
//	$O.<bucket>.C.<nuid>                      its chunks
//	$O.<bucket>.C.ltx-names.<name as tokens>  empty: there may be an object of that name
//	$O.<bucket>.C.ltx-mark.names              decimal: metas up to that sequence have their name there
//	$O.<bucket>.C.ltx-mark.deletes            empty: what was deleted before is gone from a replica that has it

func (s *Store) subject(half, rest string) string { return "$O." + s.cfg.Bucket + half + rest }

func (s *Store) metaSubject(name string) string {
	return s.subject(".M.", base64.URLEncoding.EncodeToString([]byte(name)))
}

func (s *Store) allMetas() string                { return s.subject(".M.", "*") }
func (s *Store) chunkSubject(nuid string) string { return s.subject(".C.", nuid) }
func (s *Store) allChunks() string               { return s.subject(".C.", "*") }
func (s *Store) markSubject() string             { return s.subject(".C.", "ltx-mark.names") }
func (s *Store) fenceSubject() string            { return s.subject(".C.", "ltx-mark.deletes") }
func (s *Store) nameSubject(name string) string {
	return s.subject(".C.ltx-names.", tokens.Replace(name))
}
func (s *Store) nameOf(subject string) string {
	return segments.Replace(subject[len(s.subject(".C.ltx-names.", "")):])
}
func (s *Store) nuidOf(chunkSubject string) string { return chunkSubject[len(s.subject(".C.", "")):] }

// A segment of a key is a token; a dot, which would divide it, becomes a
// percent sign, which no key has.
var (
	tokens   = strings.NewReplacer("/", ".", ".", "%")
	segments = strings.NewReplacer(".", "/", "%", ".")
)

// namesUnder returns the filter for the names of the folder that prefix points
// into; false where no valid name can begin with prefix.
func (s *Store) namesUnder(prefix string) (filter string, ok bool) {
	folder := ""
	if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
		if !validName(prefix[:i]) {
			return "", false
		}
		folder = tokens.Replace(prefix[:i]) + "."
	}
	return s.subject(".C.ltx-names.", folder+">"), true
}

const maxName = 1500 // bytes of a prefix and a key

// validName reports whether a name in the bucket can be that of a key under
// some prefix.
func validName(name string) bool {
	if len(name) > maxName {
		return false
	}
	for segment := range strings.SplitSeq(name, "/") {
		if objstore.CheckKey(segment) != nil {
			return false
		}
	}
	return true
}
