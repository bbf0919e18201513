package archive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/subscriber"
)

const (
	// maxTries bounds how often another way is tried around a file that is
	// damaged or has vanished.
	maxTries = 20
	// maxInputs bounds how many files are open for one base; what is behind them
	// is the next one.
	maxInputs = 256
)

// search is one search for a base; it remembers what not to use.
type search struct {
	archive *levels.Archive
	dir     string
	log     *slog.Logger
	db      string
	after   ltx.Pos
	follows bool  // for a replica that has nothing else
	mark    *mark // where after came from; nil: not known

	bad  []levels.File
	used []levels.File // by the last try
	post ltx.Checksum  // of the database after the base, 0: not known
}

func newSearch(b *Bootstrapper, db string, after ltx.Pos) *search {
	s := &search{archive: b.Archive, dir: b.Dir, log: b.Logger, db: db, after: after}
	if s.log == nil {
		s.log = slog.Default()
	}
	return s
}

// run searches all levels.
func (s *search) run(ctx context.Context) (*subscriber.Base, error) {
	for range maxTries {
		base, err := s.once(ctx)
		if err == nil || ctx.Err() != nil || !s.learn(err) {
			return base, err
		}
	}
	return nil, errors.New("gave up: the archive changes too fast or is damaged in too many places")
}

// once makes a base of the files that are not known to be bad.
func (s *search) once(ctx context.Context) (*subscriber.Base, error) {
	files, err := s.list(ctx, levels.Stream, levels.Snapshot, 0)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%w: archive %s has no files of %s", subscriber.ErrNoBase, s.archive, s.db)
	}
	changes, replaced, err := s.continuation(ctx, files)
	if err != nil {
		return nil, err
	}
	whole, errWhole := planWhole(files, levels.Newest(files).Max)
	wholeEnd, changesEnd := end(whole), end(changes)
	switch {
	case replaced && wholeEnd > 0:
		s.log.Warn("the replica's position is not of the archive's history", "db", s.db, "have", s.after.TXID, "archive", wholeEnd)
		return s.merge(ctx, whole, true)
	case levels.Newest(files).Max == s.after.TXID && !replaced:
		return nil, subscriber.ErrUpToDate
	case max(wholeEnd, changesEnd) <= s.after.TXID: // a replica never goes back
		return nil, s.stuck(files, wholeEnd, errWhole)
	case changesEnd > wholeEnd, changesEnd == wholeEnd && s.shorter(changes, whole):
		return s.merge(ctx, changes, false)
	}
	return s.merge(ctx, whole, true)
}

// shorter reports whether changes are the way to go where the whole database leads
// as far. A replica that follows is spared a new beginning that saves little.
func (s *search) shorter(changes, whole []levels.File) bool {
	n := size(changes)
	return n < size(whole) || s.follows && n <= inMemory
}

// stuck says why nothing leads on from the position.
func (s *search) stuck(files []levels.File, wholeEnd ltx.TXID, err error) error {
	switch newest := levels.Newest(files).Max; {
	case newest < s.after.TXID:
		err = fmt.Errorf("it ends at TXID %s, before the replica's %s: it lost its newest files, or is not written yet; the replica stays as it is, and goes on once the archive is past it; to begin anew, move replica and state directory away",
			newest, s.after.TXID)
	case err == nil:
		err = fmt.Errorf("files are missing behind TXID %s", max(wholeEnd, s.after.TXID))
	}
	return fmt.Errorf("%w: archive %s: %w", subscriber.ErrNoBase, s.archive, err)
}

// end is the last TXID of a chain, 0: there is none.
func end(chain []levels.File) ltx.TXID {
	if len(chain) == 0 {
		return 0
	}
	return chain[len(chain)-1].Max
}

// list returns the files of some levels that begin at a TXID or behind, by Min.
func (s *search) list(ctx context.Context, first, last levels.Level, from ltx.TXID) (files []levels.File, err error) {
	for level := first; level <= last; level++ {
		for f, err := range s.archive.Files(ctx, s.db, level, from) {
			if err != nil {
				return nil, err
			}
			if !slices.ContainsFunc(s.bad, f.Is) {
				files = append(files, f)
			}
		}
	}
	slices.SortFunc(files, levels.CompareRange)
	return files, nil
}

// planWhole plans the newest point that can be reached.
func planWhole(files []levels.File, to ltx.TXID) ([]levels.File, error) {
	all := make([]restore.File, len(files))
	for i, f := range files {
		all[i] = restore.File{File: f}
	}
	plan, err := restore.Plan(all, to)
	if fault, ok := errors.AsType[*restore.PlanError](err); ok && fault.Reached != 0 {
		plan, err = restore.Plan(all, fault.Reached)
	}
	if err != nil {
		return nil, err
	}
	chain := make([]levels.File, len(plan))
	for i, f := range plan {
		chain[i] = f.File
	}
	return chain, nil
}

// cover plans the way from the position on, as far as files, sorted by Min, lead.
func (s *search) cover(files []levels.File) []levels.File {
	if s.after.IsZero() {
		return nil
	}
	return levels.Cover(files, func(f levels.File) levels.File { return f }, s.after.TXID, levels.Newest(files).Max)
}

func size(files []levels.File) (n int64) {
	for _, f := range files {
		n += f.Size
	}
	return n
}

// learn reports whether another way may lead around err.
func (s *search) learn(err error) bool {
	if damage, ok := errors.AsType[*levels.DamageError](err); ok {
		for _, f := range s.used {
			if s.archive.Key(s.db, f) == damage.Key {
				return s.avoid(f, err)
			}
		}
	}
	if fault, ok := errors.AsType[*compactor.InputError](err); ok && compactor.Broken(err) {
		return s.avoid(s.used[fault.Index], err)
	}
	return errors.Is(err, fs.ErrNotExist)
}

func (s *search) avoid(f levels.File, err error) bool {
	s.log.Warn("archive file cannot be used, looking for another way", "db", s.db, "file", s.archive.Key(s.db, f), "err", err)
	s.bad = append(s.bad, f)
	return true
}
