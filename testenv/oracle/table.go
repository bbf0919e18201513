package oracle

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
)

// table is how to read one table's rows in a defined order.
type table struct {
	name  string
	query string
}

// tables lists the tables with rows of their own, sqlite_sequence and the like included, by name.
func (s *Snapshot) tables(ctx context.Context) ([]table, error) {
	rows, err := s.conn.QueryContext(ctx, `SELECT name, wr FROM pragma_table_list WHERE schema = 'main'
		AND type IN ('table', 'shadow') AND name NOT IN ('sqlite_schema', 'sqlite_master') ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	defer rows.Close()
	var names []string
	withoutRowid := map[string]bool{}
	for rows.Next() {
		var name string
		var wr bool
		if err := rows.Scan(&name, &wr); err != nil {
			return nil, fmt.Errorf("list tables: %w", err)
		}
		names = append(names, name)
		withoutRowid[name] = wr
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	return s.describe(ctx, names, withoutRowid)
}

func (s *Snapshot) describe(ctx context.Context, names []string, withoutRowid map[string]bool) ([]table, error) {
	tables := make([]table, 0, len(names))
	for _, name := range names {
		columns, key, err := s.columns(ctx, name)
		if err != nil {
			return nil, err
		}
		if !withoutRowid[name] {
			key = rowidName(columns)
		}
		tables = append(tables, table{name: name, query: selectAll(name, columns, key, !withoutRowid[name])})
	}
	return tables, nil
}

// columns returns the table's column names and, of those, the primary key in its order.
func (s *Snapshot) columns(ctx context.Context, name string) (columns, key []string, err error) {
	rows, err := s.conn.QueryContext(ctx, "SELECT name, pk FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid", name)
	if err != nil {
		return nil, nil, fmt.Errorf("list columns of %s: %w", name, err)
	}
	defer rows.Close()
	byPK := map[int]string{}
	for rows.Next() {
		var column string
		var pk int
		if err := rows.Scan(&column, &pk); err != nil {
			return nil, nil, fmt.Errorf("list columns of %s: %w", name, err)
		}
		columns = append(columns, column)
		if pk > 0 {
			byPK[pk] = column
		}
	}
	for i := 1; i <= len(byPK); i++ {
		key = append(key, quote(byPK[i]))
	}
	return columns, key, rows.Err()
}

// rowidName is a name of the rowid that no column has taken; with all three taken the rows are ordered by their columns.
func rowidName(columns []string) []string {
	for _, name := range []string{"rowid", "_rowid_", "oid"} {
		if !slices.ContainsFunc(columns, func(c string) bool { return strings.EqualFold(c, name) }) {
			return []string{name}
		}
	}
	var all []string
	for _, c := range columns {
		all = append(all, quote(c))
	}
	return all
}

// selectAll reads each column as an expression: a plain column of a declared type such as DATETIME would be converted by
// the driver, and its storage class be lost.
func selectAll(name string, columns, key []string, withRowid bool) string {
	var what []string
	if withRowid {
		what = append(what, key[0])
	}
	for _, c := range columns {
		what = append(what, "+"+quote(c))
	}
	return fmt.Sprintf("SELECT %s FROM %s NOT INDEXED ORDER BY %s",
		strings.Join(what, ", "), quote(name), strings.Join(key, ", "))
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// cursor walks the rows of one table.
type cursor struct {
	rows   *sql.Rows
	values []any
	scan   []any
}

func (s *Snapshot) cursor(ctx context.Context, t table) (*cursor, error) {
	rows, err := s.conn.QueryContext(ctx, t.query)
	if err != nil {
		return nil, fmt.Errorf("read %s of %s: %w", t.name, s.Path, err)
	}
	names, err := rows.Columns()
	if err != nil {
		_ = rows.Close()
		return nil, fmt.Errorf("read %s of %s: %w", t.name, s.Path, err)
	}
	c := &cursor{rows: rows, values: make([]any, len(names)), scan: make([]any, len(names))}
	for i := range c.values {
		c.scan[i] = &c.values[i]
	}
	return c, nil
}

// next returns the values of the next row, nil at the end. They are int64, float64, string, []byte or nil: a value's Go type
// is its storage class. Valid until the next call.
func (c *cursor) next() ([]any, error) {
	if !c.rows.Next() {
		return nil, c.rows.Err()
	}
	if err := c.rows.Scan(c.scan...); err != nil {
		return nil, err
	}
	return c.values, nil
}

func (c *cursor) close() { _ = c.rows.Close() }
