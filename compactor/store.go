package compactor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"io/fs"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/internal/tempfile"
	"github.com/ltxstream/ltxstream/objstore/levels"
)

// Names under which the database's checksums are kept with a file that must not
// bear them (MergeOptions.NoChecksums).
const (
	MetaPre  = "prechecksum"
	MetaPost = "postchecksum"
)

// ErrOtherHistory says that an archive holds another file under the name that
// one is to get: something else writes to the same place, or did.
var ErrOtherHistory = errors.New("the archive holds another history under this name")

// StoreConfig says how [Store] writes.
type StoreConfig struct {
	Archive *levels.Archive
	DB      string
	MergeOptions

	replace bool // what is there under the name is damaged
}

// Store merges inputs of a known total size into the file of a level, and reads
// it back. When it returns nil the file is durable, whole, and holds what was
// merged; a file that was there already under that name and holds the same is
// taken for it, one that is damaged is replaced. Larger files are streamed.
func Store(ctx context.Context, cfg StoreConfig, level levels.Level, inputs []Input, total int64) (levels.File, Merged, error) {
	cfg.Snapshot = level == levels.Snapshot
	store := storeStreamed
	switch {
	case total <= inMemory:
		store = storeSmall
	case cfg.NoChecksums: // whose metadata is known at the end of the merge only
		store = storeStaged
	}
	f, m, err := store(ctx, cfg, level, inputs)
	if damage, ok := errors.AsType[*levels.DamageError](err); ok && damage.Key == cfg.Archive.Key(cfg.DB, f) {
		cfg.replace = true
		f, m, err = store(ctx, cfg, level, inputs)
	}
	return f, m, err
}

// inMemory is the size up to which a file is merged before it is sent: then the
// store can be asked again when it fails, and it is one request.
const inMemory = 4 << 20

func (cfg StoreConfig) put(ctx context.Context, f levels.File, r io.Reader, meta map[string]string) error {
	put := cfg.Archive.Put
	if cfg.replace {
		put = cfg.Archive.Replace
	}
	_, err := put(ctx, cfg.DB, f, r, meta)
	return err
}

func storeSmall(ctx context.Context, cfg StoreConfig, level levels.Level, inputs []Input) (levels.File, Merged, error) {
	var buf bytes.Buffer
	m, err := Merge(ctx, &buf, inputs, cfg.MergeOptions)
	if err != nil {
		return levels.File{}, m, err
	}
	f := fileWith(level, m)
	err = cfg.put(ctx, f, bytes.NewReader(buf.Bytes()), cfg.meta(m))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return f, m, err
	}
	return settle(ctx, cfg, f, m, crc64.Checksum(buf.Bytes(), crcTable), err)
}

// storeStaged merges into a file without a name first.
func storeStaged(ctx context.Context, cfg StoreConfig, level levels.Level, inputs []Input) (f levels.File, m Merged, err error) {
	stage, err := tempfile.Open(cfg.SpillDir, "ltx-merge-*.tmp")
	if err != nil {
		return f, m, fmt.Errorf("stage: %w", err)
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	hash := crc64.New(crcTable)
	if m, err = Merge(ctx, io.MultiWriter(stage, hash), inputs, cfg.MergeOptions); err != nil {
		return f, m, err
	}
	f = fileWith(level, m)
	err = cfg.put(ctx, f, io.NewSectionReader(stage, 0, m.Size), cfg.meta(m))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return f, m, err
	}
	return settle(ctx, cfg, f, m, hash.Sum64(), err)
}

func fileOf(level levels.Level, hdr ltx.Header) levels.File {
	return levels.File{Level: level, Min: hdr.MinTXID, Max: hdr.MaxTXID}
}

func fileWith(level levels.Level, m Merged) levels.File {
	f := fileOf(level, m.Header)
	f.Size, f.Timestamp = m.Size, m.Timestamp()
	return f
}

func (cfg StoreConfig) meta(m Merged) map[string]string {
	if !cfg.NoChecksums || m.Post == 0 {
		return nil
	}
	meta := map[string]string{MetaPost: m.Post.String()}
	if m.Pre != 0 {
		meta[MetaPre] = m.Pre.String()
	}
	return meta
}

var crcTable = crc64.MakeTable(crc64.ECMA)

// storeStreamed merges while it sends. The file's name and timestamp are those of
// its header, which is known when the merge has read the inputs' own.
func storeStreamed(ctx context.Context, cfg StoreConfig, level levels.Level, inputs []Input) (levels.File, Merged, error) {
	mergeCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	pr, pw := io.Pipe()
	hash := crc64.New(crcTable)
	type outcome struct {
		m   Merged
		err error
	}
	done := make(chan outcome, 1)
	begun := make(chan ltx.Header, 1)
	opts := cfg.MergeOptions
	opts.begun = func(hdr ltx.Header) { begun <- hdr }
	go func() {
		m, err := Merge(mergeCtx, io.MultiWriter(pw, hash), inputs, opts)
		pw.CloseWithError(err) // nil: the end of the file
		done <- outcome{m, err}
	}()
	var f levels.File
	select {
	case hdr := <-begun:
		f = fileWith(level, Merged{Header: hdr})
	case out := <-done: // it writes nothing before it tells the header
		return f, out.m, out.err
	}
	err := cfg.put(ctx, f, pr, nil)
	if err != nil {
		cancel(err) // the merge must not wait for a reader that is gone
		pr.CloseWithError(err)
	}
	out := <-done
	if out.err != nil && !errors.Is(out.err, err) {
		return f, out.m, out.err
	}
	if err != nil {
		if errors.Is(err, fs.ErrExist) {
			return settleByContent(ctx, cfg, f, inputs)
		}
		return f, out.m, err
	}
	return settle(ctx, cfg, fileWith(level, out.m), out.m, hash.Sum64(), nil)
}

// settle reads back what was put, or what was there before.
func settle(ctx context.Context, cfg StoreConfig, f levels.File, m Merged, sum uint64, put error) (levels.File, Merged, error) {
	size, got, err := readBack(ctx, cfg.Archive, cfg.DB, f)
	switch {
	case err != nil:
		return f, m, fmt.Errorf("read back %s: %w", cfg.Archive.Key(cfg.DB, f), err)
	case size == m.Size && got == sum:
		return f, m, nil
	case put != nil:
		return settleOther(ctx, cfg, f, m)
	}
	err = &levels.DamageError{Key: cfg.Archive.Key(cfg.DB, f), Err: fmt.Errorf("read back %d bytes with checksum %016x, wrote %d with %016x", size, got, m.Size, sum)}
	return f, m, err
}

func readBack(ctx context.Context, a *levels.Archive, db string, f levels.File) (size int64, sum uint64, err error) {
	r, err := a.Open(ctx, db, f, 0, -1)
	if err != nil {
		return 0, 0, err
	}
	hash := crc64.New(crcTable)
	size, err = io.Copy(hash, r)
	return size, hash.Sum64(), errors.Join(err, r.Close())
}

// settleOther looks at a file that was there before and has other bytes: whole,
// and with the same positions, it is as good.
func settleOther(ctx context.Context, cfg StoreConfig, f levels.File, m Merged) (levels.File, Merged, error) {
	there, err := Inspect(ctx, cfg.Archive, cfg.DB, f)
	if err != nil {
		return f, m, err
	}
	if there.Post != m.Post && there.Post != 0 && m.Post != 0 || there.Header.Commit != m.Header.Commit {
		return f, m, fmt.Errorf("%s ends at checksum %s, not %s: %w", cfg.Archive.Key(cfg.DB, f), there.Post, m.Post, ErrOtherHistory)
	}
	f.Size, f.Timestamp = there.Size, there.Timestamp()
	return f, there, nil
}

// settleByContent holds a large file that was there before against what the
// inputs make.
func settleByContent(ctx context.Context, cfg StoreConfig, f levels.File, inputs []Input) (levels.File, Merged, error) {
	hash := crc64.New(crcTable)
	m, err := Merge(ctx, hash, inputs, cfg.MergeOptions)
	if err != nil {
		return f, m, err
	}
	return settle(ctx, cfg, fileWith(f.Level, m), m, hash.Sum64(), fs.ErrExist)
}

// Inspect reads a file of an archive whole and verifies it. Merged.Post is known
// even where only metadata tells it.
func Inspect(ctx context.Context, a *levels.Archive, db string, f levels.File) (m Merged, err error) {
	r, err := a.Open(ctx, db, f, 0, -1)
	if err != nil {
		return m, err
	}
	c, err := ltxfile.Verify(r)
	if err := errors.Join(err, r.Close()); err != nil {
		if errors.Is(err, ltxfile.ErrDamaged) {
			err = &levels.DamageError{Key: a.Key(db, f), Err: err}
		}
		return m, err
	}
	m = Merged{Header: c.Header, Trailer: c.Trailer, Pages: c.Pages, Size: c.Size}
	if m.Header.MinTXID != f.Min || m.Header.MaxTXID != f.Max {
		return m, &levels.DamageError{Key: a.Key(db, f), Err: fmt.Errorf("it holds %s-%s", m.Header.MinTXID, m.Header.MaxTXID)}
	}
	m.Pre, m.Post = m.Header.PreApplyChecksum, m.Trailer.PostApplyChecksum
	if m.Post == 0 {
		m.Post, err = PostOf(ctx, a, db, f)
	}
	return m, err
}

// PostOf returns the checksum of the database after a file: its trailer's, else
// what its metadata says, else 0. One or two requests.
func PostOf(ctx context.Context, a *levels.Archive, db string, f levels.File) (ltx.Checksum, error) {
	t, err := a.Trailer(ctx, db, f)
	if err != nil || t.PostApplyChecksum != 0 {
		return t.PostApplyChecksum, err
	}
	info, err := a.Store().Stat(ctx, a.Key(db, f))
	if err != nil || info.Meta[MetaPost] == "" {
		return 0, err
	}
	post, err := ltx.ParseChecksum(info.Meta[MetaPost])
	if err != nil {
		return 0, &levels.DamageError{Key: a.Key(db, f), Err: fmt.Errorf("metadata %s: %w", MetaPost, err)}
	}
	return post, nil
}

// Inputs are files of an archive as inputs of a merge.
func Inputs(a *levels.Archive, db string, files []levels.File) (inputs []Input, total int64) {
	for _, f := range files {
		total += f.Size
		inputs = append(inputs, Input{Name: a.Key(db, f), Open: func(ctx context.Context) (io.ReadCloser, error) {
			return a.Open(ctx, db, f, 0, -1)
		}})
	}
	return inputs, total
}

// Broken reports whether err says that a file's content is at fault, or that it
// is gone.
func Broken(err error) bool {
	_, damaged := errors.AsType[*levels.DamageError](err)
	return damaged || errors.Is(err, ltxfile.ErrDamaged) || errors.Is(err, ErrChain) || errors.Is(err, fs.ErrNotExist)
}
