package levels

import "github.com/superfly/ltx"

// Cover returns, of files sorted by Min, the fewest that lead from the state
// after TXID pos towards to without a gap: of those that begin in time always the
// one that ends last, and none that ends behind to. Files of a whole database are
// passed over. It may stop short of to.
func Cover[F any](sorted []F, of func(F) File, pos, to ltx.TXID) (chain []F) {
	var best F
	end := ltx.TXID(0) // of best
	for _, f := range sorted {
		file := of(f)
		if file.Max > to || file.IsBase() {
			continue
		}
		for file.Min > pos+1 && end > pos {
			chain, pos = append(chain, best), end
		}
		if file.Min > pos+1 {
			break
		}
		if file.Max > end {
			best, end = f, file.Max
		}
	}
	if end > pos {
		chain = append(chain, best)
	}
	return chain
}
