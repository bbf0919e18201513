package archive

import (
	"context"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/objstore/levels"
)

// continuation returns the changes that lead on from the position, nil: there
// are none, or nothing proves that they are of its history. replaced: the archive
// has another history for certain.
func (s *search) continuation(ctx context.Context, files []levels.File) (changes []levels.File, replaced bool, err error) {
	if s.after.IsZero() {
		return nil, false, nil
	}
	if last := levels.Newest(files); last.Max < s.after.TXID {
		replaced, err = s.replacedBy(ctx, last)
		return nil, replaced, err
	}
	changes = s.cover(files)
	same, err := s.sameHistory(ctx, files, changes)
	switch {
	case err != nil:
		return nil, false, err
	case !same: // where nothing newer will come to replace it, it is replaced now
		return nil, s.follows && levels.Newest(files).Max == s.after.TXID, nil
	}
	return changes, false, nil
}

// replacedBy reports whether the archive's last file, which ends before the
// position, is of a history that began after the position was reached.
func (s *search) replacedBy(ctx context.Context, last levels.File) (bool, error) {
	if s.mark == nil {
		return false, nil
	}
	s.used = []levels.File{last}
	f, err := s.archive.StampedByHeader(ctx, s.db, last)
	return err == nil && f.Timestamp.After(s.mark.time()), err
}

// sameHistory reports whether the files, in which changes lead on from the
// position, are of the position's history. Database checksums tell, where a change
// begins right behind it. Else the mark does: a history that began anew in this
// archive after the position was reached has only files that are newer, so that
// one which ends at or before the position, and is not, proves the old one. (A
// change from before the position on that bears checksums proves itself when it is
// applied.)
func (s *search) sameHistory(ctx context.Context, files, changes []levels.File) (bool, error) {
	proven := false
	if len(changes) > 0 {
		s.used = changes
		hdr, err := s.archive.Header(ctx, s.db, changes[0])
		if err != nil {
			return false, err
		}
		if proven = !hdr.NoChecksum(); proven && hdr.MinTXID == s.after.TXID+1 {
			return hdr.PreApplyChecksum == s.after.PostApplyChecksum, nil
		}
	}
	witness := s.witness(files)
	switch s.used = []levels.File{witness}; {
	case witness.Max == 0:
		return proven, nil
	case s.mark != nil:
		f, err := s.archive.StampedByHeader(ctx, s.db, witness)
		return err == nil && !f.Timestamp.After(s.mark.time()), err
	case witness.Max != s.after.TXID:
		return proven, nil
	}
	post, err := compactor.PostOf(ctx, s.archive, s.db, witness)
	return err == nil && post == s.after.PostApplyChecksum, err
}

// witness is the file that ends last at or before the position: where there are
// several, the smallest level's.
func (s *search) witness(files []levels.File) (found levels.File) {
	for _, f := range files {
		if f.Max <= s.after.TXID && (f.Max > found.Max || f.Max == found.Max && f.Level < found.Level) {
			found = f
		}
	}
	return found
}

// mark says where a position came from: a file of an archive.
type mark struct {
	Archive string      `json:"archive"` // its URL and the database's name there
	File    levels.File `json:"file"`    // the last one that was applied
	Millis  int64       `json:"millis"`  // its header's timestamp, Unix
	// Post is the database's checksum after it, 0 where that was not known before
	// it was applied.
	Post ltx.Checksum `json:"post,omitempty"`
}

// of reports whether the mark is that of a position.
func (m *mark) of(pos ltx.Pos) bool {
	return m.File.Max == pos.TXID && (m.Post == 0 || m.Post == pos.PostApplyChecksum)
}

func (m *mark) time() time.Time { return time.UnixMilli(m.Millis) }
