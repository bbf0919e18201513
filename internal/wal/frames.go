package wal

import "slices"

// LastFrames sorts pages (pgno<<32 | frame) in place and keeps of each page
// the entry with the highest frame.
func LastFrames(pages []uint64) []uint64 {
	slices.Sort(pages)
	n := 0
	for i, e := range pages {
		if i+1 < len(pages) && pages[i+1]>>32 == e>>32 {
			continue
		}
		pages[n] = e
		n++
	}
	return pages[:n]
}
