package levels

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"time"

	"github.com/ltxstream/ltxstream/objstore"
)

// Stamped returns f with its exact timestamp: what the listing told where that
// is exact, else what the object's metadata says, else what its LTX header
// says. It costs at most two requests; a file that tells none of it is an
// error.
func (a *Archive) Stamped(ctx context.Context, db string, f File) (File, error) {
	if !f.Timestamp.IsZero() && f.Coarse == 0 {
		return f, nil
	}
	if f.Timestamp.IsZero() {
		info, err := a.store.Stat(ctx, a.Key(db, f))
		if err != nil {
			return f, fmt.Errorf("timestamp of %s: %w", a.Key(db, f), err)
		}
		if f.Timestamp, f.Coarse = info.Timestamp, info.Coarse; exact(info) {
			return f, nil
		}
	}
	return a.StampedByHeader(ctx, db, f)
}

func exact(info objstore.Info) bool { return !info.Timestamp.IsZero() && info.Coarse == 0 }

// StampedByHeader returns f with the timestamp of its LTX header: one request.
func (a *Archive) StampedByHeader(ctx context.Context, db string, f File) (File, error) {
	hdr, err := a.Header(ctx, db, f)
	if err != nil {
		return f, fmt.Errorf("timestamp of %s: %w", a.Key(db, f), err)
	}
	if hdr.Timestamp <= 0 {
		return f, &DamageError{Key: a.Key(db, f), Err: errors.New("its header has no timestamp")}
	}
	f.Timestamp, f.Coarse = time.UnixMilli(hdr.Timestamp).UTC(), 0
	return f, nil
}

// Before returns how many of files, which are of one level in TXID order, have
// timestamps at or before t. Timestamps grow with TXIDs, so it looks at
// O(log n) files; where a listing tells them that costs nothing. The files at
// the boundary are held against their LTX headers (two requests), and if the
// metadata was wrong there (a copy of a directory has the times of the copying)
// the headers alone decide. What was looked up is kept in files: those two have
// their exact timestamps afterwards.
func (a *Archive) Before(ctx context.Context, db string, files []File, t time.Time) (int, error) {
	n, err := a.search(files, t, func(f File) (File, error) {
		if certainlyBefore(f, t) || f.Timestamp.After(t) {
			return f, nil // as exact as is needed
		}
		return a.Stamped(ctx, db, f)
	})
	if err != nil {
		return 0, err
	}
	byHeader := func(f File) (File, error) { return a.StampedByHeader(ctx, db, f) }
	for i := max(0, n-1); i < min(n+1, len(files)); i++ {
		f, err := byHeader(files[i])
		if err != nil {
			return 0, err
		}
		if files[i] = f; f.Timestamp.After(t) != (i >= n) {
			return a.search(files, t, byHeader)
		}
	}
	return n, nil
}

func certainlyBefore(f File, t time.Time) bool {
	return !f.Timestamp.IsZero() && !f.Timestamp.Add(f.Coarse).After(t)
}

// search finds the boundary by bisection. It keeps in files what it looks up:
// the files on both sides of the boundary are among that.
func (a *Archive) search(files []File, t time.Time, stamped func(File) (File, error)) (int, error) {
	var failed error
	n := sort.Search(len(files), func(i int) bool {
		if failed == nil {
			files[i], failed = stamped(files[i])
		}
		return failed != nil || files[i].Timestamp.After(t)
	})
	return n, failed
}
