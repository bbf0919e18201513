package restore

import (
	"cmp"
	"slices"

	"github.com/ltxstream/ltxstream/objstore/levels"
)

func sortedByMin(files []File) []File {
	sorted := slices.Clone(files)
	slices.SortFunc(sorted, func(a, b File) int { return levels.CompareRange(a.File, b.File) })
	return sorted
}

// byLevel returns the files of each source and level in the order of their ends.
func (c *Catalog) byLevel() (groups [][]File) {
	sorted := slices.Clone(c.Files)
	slices.SortFunc(sorted, func(a, b File) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Level, b.Level), cmp.Compare(a.Max, b.Max), cmp.Compare(a.Min, b.Min))
	})
	for i, f := range sorted {
		if i == 0 || f.Source != sorted[i-1].Source || f.Level != sorted[i-1].Level {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], f)
	}
	return groups
}
