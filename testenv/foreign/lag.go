package foreign

import (
	"slices"
	"time"

	"github.com/ltxstream/ltxstream/testenv/app"
)

// Lags joins what an application committed with what a Probe saw: for each commit within the probe's range, the time from
// the end of the commit to the first poll that showed it or a later one. A commit may be visible before the application
// hears of it: such a lag is 0. Both lists must be in order of their sequences. missing counts the commits never seen.
func Lags(commits []app.Commit, seen []Seen) (lags []time.Duration, missing int) {
	if len(seen) == 0 {
		return nil, len(commits)
	}
	for _, c := range commits {
		if c.Seq <= seen[0].Seq {
			continue // there before the probe
		}
		i, _ := slices.BinarySearchFunc(seen, c.Seq, func(s Seen, seq int64) int { return int(s.Seq - seq) })
		if i == len(seen) {
			missing++
			continue
		}
		lags = append(lags, time.Duration(max(seen[i].At-c.End, 0)))
	}
	return lags, missing
}
