package archiver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/internal/tempfile"
)

// stage holds the files of one lane that wait for the next flush, one behind the
// other in a file without a name. What is lost of it comes again from the stream.
type stage struct {
	dir    string
	f      *os.File
	size   int64
	files  []staged
	since  time.Time   // when the oldest came
	stored []time.Time // when the stream stored each, for the lag
	end    endpoint
}

// staged is one file in the stage: several files of the stream when folded.
type staged struct {
	offset, size int64
	min, max     ltx.TXID
}

// endpoint is how far the stream has been read.
type endpoint struct {
	pos      ltx.Pos
	firstSeq uint64 // of the newest file
	lastSeq  uint64
	time     time.Time // of the newest transaction
}

// stagePattern names stages for the moment they have a name.
const stagePattern = "stage-*.tmp"

// foldAt is how many files wait before they are merged into one: a merge holds
// all of its inputs open.
const foldAt = 128

func (s *stage) empty() bool { return len(s.files) == 0 }

// add copies a file into the stage; after an error, a full disk perhaps, it holds
// what it did before.
func (s *stage) add(ctx context.Context, file *feed.File) error {
	if s.f == nil {
		f, err := tempfile.Open(s.dir, stagePattern)
		if err != nil {
			return fmt.Errorf("open stage: %w", err)
		}
		s.f = f
	}
	n, err := io.Copy(io.NewOffsetWriter(s.f, s.size), file.Section(ctx))
	if err != nil {
		return errors.Join(fmt.Errorf("stage TXID %s: %w", file.Meta.Min, err), s.f.Truncate(s.size))
	}
	if s.empty() {
		s.since = time.Now()
	}
	m := file.Meta
	s.files = append(s.files, staged{offset: s.size, size: n, min: m.Min, max: m.Max})
	s.stored = append(s.stored, file.Stored)
	s.size += n
	s.end = endpoint{pos: m.PostPos(), firstSeq: file.FirstSeq, lastSeq: file.LastSeq, time: m.Timestamp}
	return nil
}

// inputs are the waiting files as inputs of a merge.
func (s *stage) inputs() (inputs []compactor.Input) {
	for _, st := range s.files {
		inputs = append(inputs, compactor.Input{
			Name: fmt.Sprintf("staged TXID %s-%s", st.min, st.max),
			Open: func(context.Context) (io.ReadCloser, error) {
				return io.NopCloser(io.NewSectionReader(s.f, st.offset, st.size)), nil
			},
		})
	}
	return inputs
}

// fold merges the waiting files into one; after an error they are as they were.
func (s *stage) fold(ctx context.Context) error {
	f, err := tempfile.Open(s.dir, stagePattern)
	if err != nil {
		return fmt.Errorf("fold staged files: %w", err)
	}
	m, err := compactor.Merge(ctx, f, s.inputs(), compactor.MergeOptions{SpillDir: s.dir})
	if err != nil {
		return errors.Join(fmt.Errorf("fold staged files: %w", err), f.Close())
	}
	err = s.f.Close()
	s.f, s.size = f, m.Size
	s.files = []staged{{size: m.Size, min: m.Header.MinTXID, max: m.Header.MaxTXID}}
	return err
}

// clear forgets what waits, after a flush or to begin anew.
func (s *stage) clear() error {
	s.files, s.stored, s.size = nil, nil, 0
	if s.f == nil {
		return nil
	}
	if err := s.f.Truncate(0); err != nil {
		return errors.Join(fmt.Errorf("empty stage: %w", err), s.close())
	}
	return nil
}

func (s *stage) close() error {
	if s.f == nil {
		return nil
	}
	err := s.f.Close()
	s.f = nil
	return err
}
