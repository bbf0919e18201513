package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/atomicfile"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/wire"
)

// auditEvery is how often everything is listed while nothing new comes: only
// that shows that an archive was emptied, or begun anew.
const auditEvery = time.Minute

// Follower finds, for one replica, what comes next in an archive that something
// else keeps writing: an ltx-archive, or Litestream. While nothing is new that
// costs two requests a call, and a listing of all levels every minute; with
// something new, one more for each file and one for proof that the archive still
// has the history of the position. It belongs to one goroutine.
type Follower struct {
	Archive *levels.Archive
	// StateDir is where it keeps "archive", a note of where the replica's
	// position came from. It may be lost: then the next change without database
	// checksums is applied as a whole database.
	StateDir string
	Dir      string       // see Bootstrapper
	Logger   *slog.Logger // default slog.Default()

	audited time.Time
}

// String is the archive's URL, for people.
func (f *Follower) String() string { return f.Archive.String() }

// Base implements [subscriber.Bootstrapper]. It returns the next changes of all
// levels, level 0 included; the whole database where the position is not in the
// archive any more, or its history is not. Errors wrap subscriber.ErrUpToDate
// where nothing is newer than after.
func (f *Follower) Base(ctx context.Context, db wire.DB, after ltx.Pos) (*subscriber.Base, error) {
	if err := levels.CheckDB(string(db)); err != nil {
		return nil, err
	}
	m, err := f.recall(string(db), after)
	if err != nil {
		return nil, err
	}
	s := newSearch(&Bootstrapper{Archive: f.Archive, Dir: f.Dir, Logger: f.Logger}, string(db), after)
	s.follows, s.mark = true, m
	base, err := s.next(ctx)
	if errors.Is(err, errSearch) || errors.Is(err, subscriber.ErrUpToDate) && time.Since(f.audited) > auditEvery {
		base, err = s.run(ctx)
		if err == nil || errors.Is(err, subscriber.ErrUpToDate) {
			f.audited = time.Now()
		}
	}
	if err != nil {
		return nil, err
	}
	if err := f.note(s, m, base); err != nil {
		return nil, errors.Join(err, base.Close())
	}
	return base, nil
}

// errSearch says that only a search of all levels helps.
var errSearch = errors.New("not to be seen from the newest files alone")

// next looks only at what may have come since the position was reached: files
// that begin behind it, in the levels where the newest appear.
func (s *search) next(ctx context.Context) (*subscriber.Base, error) {
	if s.after.IsZero() {
		return nil, errSearch
	}
	files, err := s.list(ctx, levels.Stream, levels.First, s.after.TXID+1)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, subscriber.ErrUpToDate
	}
	changes := s.cover(files)
	if len(changes) == 0 || s.mark == nil {
		return nil, errSearch
	}
	same, err := s.sameHistory(ctx, append(files, s.mark.File), changes)
	if err == nil && same {
		var base *subscriber.Base
		if base, err = s.merge(ctx, changes, false); err == nil {
			return base, nil
		}
	}
	if err == nil || s.learn(err) {
		return nil, errSearch
	}
	return nil, err
}

// marks are kept two at a time: of the position, and of what is applied next. The
// replica's own position says which of them counts.
type marks []*mark

func (f *Follower) path() string { return filepath.Join(f.StateDir, "archive") }

// source names the archive and the database in a mark.
func (f *Follower) source(db string) string { return fmt.Sprintf("%s %s", f.Archive, db) }

// recall returns the mark of a position, nil where there is none.
func (f *Follower) recall(db string, after ltx.Pos) (*mark, error) {
	b, err := os.ReadFile(f.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all marks
	if json.Unmarshal(b, &all) != nil {
		return nil, nil // damaged: as good as lost
	}
	for _, m := range all {
		if m != nil && m.of(after) && m.Archive == f.source(db) {
			return m, nil
		}
	}
	return nil, nil
}

// note remembers the mark of a base before it is applied. A power loss may lose
// it; a crash of the process does not.
func (f *Follower) note(s *search, present *mark, base *subscriber.Base) error {
	next := &mark{Archive: f.source(s.db), File: s.used[len(s.used)-1], Millis: base.Timestamp.UnixMilli(), Post: s.post}
	all := marks{next}
	if present != nil {
		all = append(all, present)
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	return atomicfile.Write(f.path(), b)
}
