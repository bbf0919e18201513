package natsobj

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// MinSweepAge is the least age of what [Store.Sweep] removes.
const MinSweepAge = time.Hour

// Swept counts what a Sweep did.
type Swept struct {
	Uploads   int // broken ones whose chunks were removed
	Deletions int // marks of deletions that other programs left, removed
	Named     int // objects that got their missing name in the index
	Unnamed   int // names without an object, removed
}

// Sweep tidies the whole bucket, whatever the prefix: it removes the chunks
// that belong to no object and other programs' marks of deletions, when they
// are older than age, and makes the index complete. It reads every meta; no
// other call needs it, and it may run at any time. A Put that takes longer than
// half of MinSweepAge makes sure that it still has its chunks; other programs do
// not: age must be longer than their slowest upload pauses.
func (s *Store) Sweep(ctx context.Context, age time.Duration) (Swept, error) {
	if age < MinSweepAge {
		return Swept{}, fmt.Errorf("sweep %s: age %s, want at least %s", s, age, MinSweepAge)
	}
	swept, err := s.sweep(ctx, age)
	return swept, named("sweep", s.String(), err)
}

func (s *Store) sweep(ctx context.Context, age time.Duration) (n Swept, err error) {
	w, err := s.survey(ctx)
	if err != nil {
		return n, err
	}
	before := w.now.Add(-age)
	for nuid := range w.orphans {
		gone, err := s.purgeOld(ctx, s.chunkSubject(nuid), before)
		n.Uploads += gone
		if err != nil {
			return n, err
		}
	}
	for name := range w.deletions {
		gone, err := s.purgeOld(ctx, s.metaSubject(name), before)
		n.Deletions += gone
		if err != nil {
			return n, err
		}
	}
	for name := range w.empty {
		if err := s.purge(ctx, s.nameSubject(name), w.asOf); err != nil {
			return n, err
		}
		n.Unnamed++
	}
	n.Named = len(w.nameless)
	return n, s.publishNames(ctx, w.nameless, w.cursor)
}

// survey is what Sweep finds.
type survey struct {
	now       time.Time       // the server's
	mark      uint64          // of the index, before all
	asOf      uint64          // sequence of the stream before metas were read
	orphans   map[string]bool // nuids of chunks without a meta
	deletions map[string]bool // names
	empty     map[string]bool // names without an object
	nameless  []string        // the other way round
	cursor    uint64          // the last meta read
}

// survey reads chunks and names first: what is put after that is in the metas.
func (s *Store) survey(ctx context.Context) (w survey, err error) {
	w = survey{orphans: map[string]bool{}, deletions: map[string]bool{}, empty: map[string]bool{}}
	if w.mark, err = s.mark(ctx); err != nil {
		return w, err
	}
	all, _ := s.namesUnder("")
	i, err := s.subjects(ctx, all, func(subject string) { w.empty[s.nameOf(subject)] = true })
	if err != nil {
		return w, err
	}
	w.now, w.asOf = i.Time, i.State.LastSeq
	if _, err := s.subjects(ctx, s.allChunks(), func(subject string) { w.orphans[s.nuidOf(subject)] = true }); err != nil {
		return w, err
	}
	w.cursor, err = s.scan(ctx, 0, func(o object) bool {
		switch {
		case o.live():
			delete(w.orphans, o.NUID)
			// A name that is older than its meta may be about to be purged.
			if validName(o.Name) && (o.seq > w.mark || !w.empty[o.Name]) {
				w.nameless = append(w.nameless, o.Name)
			}
			delete(w.empty, o.Name)
		case o.Deleted:
			w.deletions[o.Name] = true
		}
		return true
	})
	return w, err
}

// purgeOld purges a subject if its last message is from before t, and returns
// how many subjects that were.
func (s *Store) purgeOld(ctx context.Context, subject string, t time.Time) (int, error) {
	m, err := s.leader(ctx, getRequest{LastFor: subject})
	if errors.Is(err, errNoMessage) {
		return 0, nil
	}
	if err != nil || m.Time.After(t) {
		return 0, err
	}
	if err := s.purge(ctx, subject, m.Seq); err != nil {
		return 0, err
	}
	return 1, nil
}
