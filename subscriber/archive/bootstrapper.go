package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/subscriber"
	"github.com/ltxstream/ltxstream/wire"
)

// Bootstrapper finds bases in an archive. It is safe for concurrent use.
type Bootstrapper struct {
	Archive *levels.Archive
	Dir     string       // for files on their way, default os.TempDir; a whole database must fit, compressed
	Logger  *slog.Logger // default slog.Default()
}

// maxTries bounds how often another way is tried around a file that is damaged
// or has vanished.
const maxTries = 20

// Base implements [subscriber.Bootstrapper]. It returns the changes since after
// where the archive has them and they lead farther than a whole database does, or
// as far and are smaller; else the whole database. Either ends behind after. It
// lists the archive each time.
func (b *Bootstrapper) Base(ctx context.Context, db wire.DB, after ltx.Pos) (*subscriber.Base, error) {
	s := &search{Bootstrapper: b, db: string(db), after: after}
	if s.Logger == nil {
		s.Bootstrapper = &Bootstrapper{Archive: b.Archive, Dir: b.Dir, Logger: slog.Default()}
	}
	for range maxTries {
		base, err := s.once(ctx)
		if err == nil || ctx.Err() != nil || !s.learn(err) {
			return base, err
		}
	}
	return nil, errors.New("gave up: the archive changes too fast or is damaged in too many places")
}

// search is one search for a base; it remembers what not to use.
type search struct {
	*Bootstrapper
	db    string
	after ltx.Pos
	bad   []levels.File
	used  []levels.File // by the last try
}

// once makes a base of the files that are not known to be bad.
func (s *search) once(ctx context.Context) (*subscriber.Base, error) {
	files, err := s.list(ctx)
	if err != nil {
		return nil, err
	}
	newest := newestOf(files)
	if newest <= s.after.TXID {
		return nil, fmt.Errorf("%w: archive %s ends at TXID %s", subscriber.ErrNoBase, s.Archive, newest)
	}
	whole, errWhole := planWhole(files, newest)
	changes, err := s.planChanges(ctx, files, newest)
	if err != nil {
		return nil, err
	}
	wholeEnd, changesEnd := end(whole), end(changes)
	switch {
	case max(wholeEnd, changesEnd) <= s.after.TXID: // a replica never goes back
		if errWhole == nil {
			errWhole = fmt.Errorf("files are missing behind TXID %s", wholeEnd)
		}
		return nil, fmt.Errorf("%w: archive %s: %w", subscriber.ErrNoBase, s.Archive, errWhole)
	case changesEnd > wholeEnd, changesEnd == wholeEnd && size(changes) < size(whole):
		return s.merge(ctx, changes, false)
	}
	return s.merge(ctx, whole, true)
}

// end is the last TXID of a chain, 0: there is none.
func end(chain []levels.File) ltx.TXID {
	if len(chain) == 0 {
		return 0
	}
	return chain[len(chain)-1].Max
}

func (s *search) list(ctx context.Context) (files []levels.File, err error) {
	for level := levels.First; level <= levels.Snapshot; level++ {
		for f, err := range s.Archive.Files(ctx, s.db, level, 0) {
			if err != nil {
				return nil, err
			}
			if !slices.ContainsFunc(s.bad, func(b levels.File) bool { return b.Level == f.Level && b.Min == f.Min && b.Max == f.Max }) {
				files = append(files, f)
			}
		}
	}
	slices.SortFunc(files, func(a, b levels.File) int { return cmp.Or(cmp.Compare(a.Min, b.Min), cmp.Compare(a.Max, b.Max)) })
	return files, nil
}

func newestOf(files []levels.File) (newest ltx.TXID) {
	for _, f := range files {
		newest = max(newest, f.Max)
	}
	return newest
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

// planChanges plans the way from the replica's position on, as far as it leads;
// nil: there is none, or the archive is of another history.
func (s *search) planChanges(ctx context.Context, files []levels.File, to ltx.TXID) ([]levels.File, error) {
	if s.after.IsZero() {
		return nil, nil
	}
	chain := levels.Cover(files, func(f levels.File) levels.File { return f }, s.after.TXID, to)
	if len(chain) == 0 {
		return nil, nil
	}
	s.used = chain
	hdr, err := s.Archive.Header(ctx, s.db, chain[0])
	if err != nil {
		return nil, err
	}
	if hdr.NoChecksum() || hdr.MinTXID == s.after.TXID+1 && hdr.PreApplyChecksum != s.after.PostApplyChecksum {
		return nil, nil
	}
	return chain, nil
}

func size(files []levels.File) (n int64) {
	for _, f := range files {
		n += f.Size
	}
	return n
}

// merge makes one file of all.
func (s *search) merge(ctx context.Context, files []levels.File, whole bool) (*subscriber.Base, error) {
	s.used = files
	f, err := os.CreateTemp(s.Dir, "ltx-base-*.tmp")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	inputs, _ := compactor.Inputs(s.Archive, s.db, files)
	m, err := compactor.Merge(ctx, f, inputs, compactor.MergeOptions{Snapshot: whole, SpillDir: s.Dir})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.Logger.Info("base made from the archive", "db", s.db, "from", m.Header.MinTXID, "to", m.Header.MaxTXID, "files", len(files), "bytes", m.Size, "full", whole)
	return &subscriber.Base{File: io.NewSectionReader(f, 0, m.Size), Full: whole, Closer: f}, nil
}

// learn reports whether another way may lead around err.
func (s *search) learn(err error) bool {
	if damage, ok := errors.AsType[*levels.DamageError](err); ok {
		for _, f := range s.used {
			if s.Archive.Key(s.db, f) == damage.Key {
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
	s.Logger.Warn("archive file cannot be used, looking for another way", "db", s.db, "file", s.Archive.Key(s.db, f), "err", err)
	s.bad = append(s.bad, f)
	return true
}
