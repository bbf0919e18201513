package compactor

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/objstore/levels"
)

// Inventory is what one database has in an archive, as far as its only writer
// knows: read once, kept up by what is written and deleted since, so that a
// steady state needs no listing. It belongs to one goroutine.
type Inventory struct {
	files map[levels.Level][]levels.File // sorted by Min, then Max
}

// ReadInventory lists all levels: nothing of ours is at level 0, but Litestream
// leaves its newest files there. Timestamps are known where the listing tells
// them.
func ReadInventory(ctx context.Context, a *levels.Archive, db string) (*Inventory, error) {
	inv := &Inventory{files: map[levels.Level][]levels.File{}}
	for level := levels.Stream; level <= levels.Snapshot; level++ {
		for f, err := range a.Files(ctx, db, level, 0) {
			if err != nil {
				return nil, err
			}
			inv.Add(f)
		}
	}
	return inv, nil
}

// stamp finds out the timestamps that are needed to go on: those of snapshots, of
// the newest file, and of files below the level top that are to be merged still.
// One that cannot be found out is returned with the error.
func (inv *Inventory) stamp(ctx context.Context, a *levels.Archive, db string, top levels.Level) (levels.File, error) {
	end := inv.End()
	toMerge := func(f levels.File) bool {
		return f.Level >= levels.First && f.Level < top && f.Max > inv.Max(f.Level+1)
	}
	for level, files := range inv.files {
		for i := range files {
			if level != levels.Snapshot && files[i] != end && !toMerge(files[i]) {
				continue
			}
			f, err := a.Stamped(ctx, db, files[i])
			if err != nil {
				return f, fmt.Errorf("read inventory: %w", err)
			}
			files[i] = f
		}
	}
	return levels.File{}, nil
}

// Add notes a file that was written.
func (inv *Inventory) Add(f levels.File) {
	if inv.files == nil {
		inv.files = map[levels.Level][]levels.File{}
	}
	files := inv.files[f.Level]
	i, found := slices.BinarySearchFunc(files, f, levels.CompareRange)
	if found {
		files[i] = f
		return
	}
	inv.files[f.Level] = slices.Insert(files, i, f)
}

// has reports whether a file of that range is known.
func (inv *Inventory) has(f levels.File) bool {
	_, found := slices.BinarySearchFunc(inv.files[f.Level], f, levels.CompareRange)
	return found
}

// Remove notes files that were deleted.
func (inv *Inventory) Remove(gone []levels.File) {
	for _, f := range gone {
		files := inv.files[f.Level]
		if i, found := slices.BinarySearchFunc(files, f, levels.CompareRange); found {
			inv.files[f.Level] = slices.Delete(files, i, i+1)
		}
	}
}

func (inv *Inventory) clone() *Inventory {
	c := &Inventory{files: map[levels.Level][]levels.File{}}
	for level, files := range inv.files {
		c.files[level] = slices.Clone(files)
	}
	return c
}

// Level returns the files of a level by Min; the caller does not change them.
func (inv *Inventory) Level(level levels.Level) []levels.File { return inv.files[level] }

// Max is the last TXID of a level, 0: it has no files.
func (inv *Inventory) Max(level levels.Level) ltx.TXID { return levels.Newest(inv.files[level]).Max }

// End is the newest file of all: where the archive ends. It is one of level 0
// where Litestream had not merged its newest files when it was stopped.
func (inv *Inventory) End() (end levels.File) {
	for _, level := range []levels.Level{levels.First, levels.Snapshot, levels.Stream} {
		if f := levels.Newest(inv.files[level]); f.Max > end.Max {
			end = f
		}
	}
	return end
}

// all returns every file by Min.
func (inv *Inventory) all() (all []levels.File) {
	for _, files := range inv.files {
		all = append(all, files...)
	}
	slices.SortFunc(all, func(a, b levels.File) int { return cmp.Or(levels.CompareRange(a, b), cmp.Compare(a.Level, b.Level)) })
	return all
}
