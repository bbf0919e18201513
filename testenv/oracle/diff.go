package oracle

import (
	"bytes"
	"context"
	"fmt"
	"slices"
)

// Difference is the first thing in which two databases differ. It is an error.
type Difference struct {
	A, B string // paths
	What string // "header", "schema", "rows" or "pages"
	At   string // which value, object, table and row, or page
	InA  string
	InB  string
}

func (d *Difference) Error() string {
	return fmt.Sprintf("%s differ at %s: %s in %s, %s in %s", d.What, d.At, d.InA, d.A, d.InB, d.B)
}

// Diff compares the databases at two paths down to the bytes of every page, and checks the integrity of both. nil means that
// they are the same; a *Difference or an *IntegrityError says why not.
func Diff(ctx context.Context, a, b string) error {
	return withBoth(ctx, a, b, func(p *pair) error {
		return p.first(ctx, p.header, p.schema, p.rows, p.pages, p.integrity)
	})
}

// DiffRows compares what two databases say: schema and rows, not pages. It checks the integrity of both.
func DiffRows(ctx context.Context, a, b string) error {
	return withBoth(ctx, a, b, func(p *pair) error {
		p.logical()
		return p.first(ctx, p.header, p.schema, p.rows, p.integrity)
	})
}

func withBoth(ctx context.Context, a, b string, f func(*pair) error) error {
	sa, err := Open(ctx, a)
	if err != nil {
		return err
	}
	defer sa.Close()
	sb, err := Open(ctx, b)
	if err != nil {
		return err
	}
	defer sb.Close()
	return f(&pair{a: sa, b: sb})
}

// pair is a comparison of two snapshots.
type pair struct{ a, b *Snapshot }

// logical makes equal what a rebuild of a file may change.
func (p *pair) logical() {
	for _, s := range []*Snapshot{p.a, p.b} {
		s.Header.PageSize, s.Header.AutoVacuum = 0, 0
		for i := range s.Schema {
			s.Schema[i].Root = 0
		}
	}
}

func (p *pair) first(ctx context.Context, steps ...func(context.Context) error) error {
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (p *pair) differ(what, at string, a, b any) error {
	return &Difference{A: p.a.Path, B: p.b.Path, What: what, At: at, InA: show(a), InB: show(b)}
}

func (p *pair) header(context.Context) error {
	a, b := p.a.Header, p.b.Header
	for _, v := range []struct {
		name string
		a, b any
	}{
		{"page_size", a.PageSize, b.PageSize},
		{"encoding", a.Encoding, b.Encoding},
		{"auto_vacuum", a.AutoVacuum, b.AutoVacuum},
		{"user_version", a.UserVersion, b.UserVersion},
		{"application_id", a.ApplicationID, b.ApplicationID},
	} {
		if v.a != v.b {
			return p.differ("header", v.name, v.a, v.b)
		}
	}
	return nil
}

func (p *pair) schema(context.Context) error {
	for i := range max(len(p.a.Schema), len(p.b.Schema)) {
		a, b := at(p.a.Schema, i), at(p.b.Schema, i)
		if a != b {
			return p.differ("schema", fmt.Sprintf("object %d", i+1), a, b)
		}
	}
	return nil
}

func at(objects []Object, i int) Object {
	if i < len(objects) {
		return objects[i]
	}
	return Object{Type: "none"}
}

// rows is called with equal schemas: both sides have the same tables.
func (p *pair) rows(ctx context.Context) error {
	tables, err := p.a.tables(ctx)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if err := p.tableRows(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (p *pair) tableRows(ctx context.Context, t table) error {
	a, err := p.a.cursor(ctx, t)
	if err != nil {
		return err
	}
	defer a.close()
	b, err := p.b.cursor(ctx, t)
	if err != nil {
		return err
	}
	defer b.close()
	for n := 1; ; n++ {
		ra, errA := a.next()
		rb, errB := b.next()
		if errA != nil || errB != nil {
			return fmt.Errorf("read %s row %d: %w", t.name, n, firstOf(errA, errB))
		}
		if ra == nil && rb == nil {
			return nil
		}
		if ra == nil || rb == nil || !sameRow(ra, rb) {
			return p.differ("rows", fmt.Sprintf("table %s row %d", t.name, n), ra, rb)
		}
	}
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func sameRow(a, b []any) bool {
	return slices.EqualFunc(a, b, func(a, b any) bool {
		return bytes.Equal(appendValue(nil, a), appendValue(nil, b))
	})
}

func (p *pair) pages(ctx context.Context) error {
	a, sumA, err := p.a.Pages(ctx)
	if err != nil {
		return err
	}
	b, sumB, err := p.b.Pages(ctx)
	if err != nil {
		return err
	}
	if len(a) != len(b) {
		return p.differ("pages", "the count", len(a), len(b))
	}
	for i := range a {
		if a[i] != b[i] {
			return p.page(ctx, i)
		}
	}
	if sumA != sumB {
		return p.differ("pages", "the rolling checksum", sumA, sumB)
	}
	return nil
}

// page names the first byte in which page i+1 differs.
func (p *pair) page(ctx context.Context, i int) error {
	imageA, err := p.a.Image(ctx)
	if err != nil {
		return err
	}
	imageB, err := p.b.Image(ctx)
	if err != nil {
		return err
	}
	size := int(p.a.Header.PageSize)
	a, b := imageA[i*size:][:size], imageB[i*size:][:size]
	for off := range a {
		if a[off] != b[off] {
			end := min(off+16, size)
			return p.differ("pages", fmt.Sprintf("page %d byte %d", i+1, off), a[off:end], b[off:end])
		}
	}
	return p.differ("pages", fmt.Sprintf("page %d", i+1), "equal bytes", "another checksum")
}

func (p *pair) integrity(ctx context.Context) error {
	if err := p.a.Integrity(ctx); err != nil {
		return err
	}
	return p.b.Integrity(ctx)
}

// show prints a value short enough for one line of a test's output.
func show(v any) string {
	const limit = 300
	s := ""
	switch v := v.(type) {
	case []byte:
		s = fmt.Sprintf("%x", v)
	case []any:
		if v == nil {
			return "no row"
		}
		for _, c := range v {
			s += fmt.Sprintf("%T(%.40v) ", c, c)
		}
	default:
		s = fmt.Sprintf("%+v", v)
	}
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return s
}
