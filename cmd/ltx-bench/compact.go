package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/testenv/child"
)

const (
	compactJob    = "compact"
	compactPage   = 4096
	compactRounds = 3
)

// compactSpec says what a child merges: a snapshot and thirty increments of two
// per cent each.
type compactSpec struct {
	Dir    string
	Theirs bool // by ltx.Compactor
}

type compactReport struct {
	Took time.Duration
	Peak int64 // bytes of resident memory
	Size int64 // bytes of the result
}

// compaction compares our merge with ltx.Compactor, and its memory at two sizes.
func compaction(ctx context.Context, b *bench) error {
	fmt.Printf("\n| snapshot and 30 increments | merge | ltx.Compactor | ratio | peak memory of the merge |\n|---|---|---|---|---|\n")
	for _, gib := range []int{1, 10} {
		dir, err := b.scratch()
		if err != nil {
			return err
		}
		input, err := writeIncrements(dir, gib<<30/compactPage)
		if err != nil {
			return err
		}
		rounds := compactRounds
		if gib > 1 {
			rounds = 1
		}
		for range rounds {
			ours, err := runCompact(ctx, compactSpec{Dir: dir})
			if err != nil {
				return err
			}
			theirs, err := runCompact(ctx, compactSpec{Dir: dir, Theirs: true})
			if err != nil {
				return err
			}
			mbs := func(r compactReport) float64 { return float64(input) / 1e6 / r.Took.Seconds() }
			fmt.Printf("| %d GiB (files of %.0f MB) | %.0f MB/s | %.0f MB/s | %.1f | %.0f MiB |\n", gib, float64(input)/1e6, mbs(ours), mbs(theirs), theirs.Took.Seconds()/ours.Took.Seconds(), mib(ours.Peak))
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

func runCompact(ctx context.Context, spec compactSpec) (r compactReport, err error) {
	reports := child.NewReports(compactReport{}, nil)
	p, err := child.Start(compactJob, spec, reports.Line)
	if err != nil {
		return r, err
	}
	defer p.Kill()
	if err := p.Wait(ctx); err != nil {
		return r, err
	}
	return reports.Last()
}

// compact is the child: it merges the files of a directory into nothing.
func compact(ctx context.Context, raw json.RawMessage, out *child.Output) error {
	var spec compactSpec
	if err := json.Unmarshal(raw, &spec); err != nil {
		return err
	}
	names, err := filepath.Glob(filepath.Join(spec.Dir, "*.ltx")) // in order
	if err != nil {
		return err
	}
	began := time.Now()
	merge := mergeOurs
	if spec.Theirs {
		merge = mergeTheirs
	}
	n := &counting{}
	if err := merge(ctx, n, names); err != nil {
		return err
	}
	r := compactReport{Took: time.Since(began), Size: n.n}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			fmt.Sscanf(strings.TrimSpace(rest), "%d", &r.Peak)
			r.Peak <<= 10
		}
	}
	return out.Send(r)
}

type counting struct{ n int64 }

func (c *counting) Write(b []byte) (int, error) {
	c.n += int64(len(b))
	return len(b), nil
}

func mergeOurs(ctx context.Context, w io.Writer, names []string) error {
	var inputs []compactor.Input
	for _, name := range names {
		inputs = append(inputs, compactor.Input{Name: name, Open: func(context.Context) (io.ReadCloser, error) { return os.Open(name) }})
	}
	_, err := compactor.Merge(ctx, w, inputs, compactor.MergeOptions{})
	return err
}

func mergeTheirs(ctx context.Context, w io.Writer, names []string) error {
	var readers []io.Reader
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		readers = append(readers, bufio.NewReaderSize(f, 256<<10))
	}
	c, err := ltx.NewCompactor(w, readers)
	if err != nil {
		return err
	}
	c.HeaderFlags = ltx.HeaderFlagNoChecksum
	return c.Compact(ctx)
}

// writeIncrements writes the files of a database of some pages, and returns their
// size in bytes.
func writeIncrements(dir string, pages int) (total int64, err error) {
	rng := rand.New(rand.NewPCG(1, 1))
	for i := range 31 {
		n, err := writeIncrement(filepath.Join(dir, fmt.Sprintf("%04d.ltx", i)), rng, i, pages)
		if err != nil {
			return 0, err
		}
		total += n
	}
	return total, nil
}

func writeIncrement(path string, rng *rand.Rand, i, pages int) (size int64, err error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	enc, err := ltx.NewEncoder(w)
	if err != nil {
		return 0, err
	}
	txid := ltx.TXID(i + 1)
	if err := enc.EncodeHeader(ltx.Header{Version: ltx.Version, Flags: ltx.HeaderFlagNoChecksum, PageSize: compactPage, Commit: uint32(pages), MinTXID: txid, MaxTXID: txid, Timestamp: int64(i)}); err != nil {
		return 0, err
	}
	page := make([]byte, compactPage)
	for pgno := 1; pgno <= pages; pgno++ {
		if i > 0 && rng.IntN(50) != 0 || uint32(pgno) == ltx.LockPgno(compactPage) {
			continue
		}
		for row := range 8 { // rows of text, a few random bytes in each
			copy(page[row*512:], "a row of text, as many databases have them, with a number in it")
			for k := range 16 {
				page[row*512+100+k] = byte(rng.Uint32())
			}
		}
		if err := enc.EncodePage(ltx.PageHeader{Pgno: uint32(pgno)}, page); err != nil {
			return 0, err
		}
	}
	if err := enc.Close(); err != nil {
		return 0, err
	}
	return enc.N(), w.Flush()
}
