package workload

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
)

// statement runs one random statement. The weights lean to what changes rows.
func (r *Random) statement(ctx context.Context, conn *sql.Conn) error {
	if len(r.tables) == 0 {
		return r.createTable(ctx, conn)
	}
	weighted := []struct {
		weight int
		run    func(context.Context, *sql.Conn, *table) error
	}{
		{30, r.insert}, {15, r.insertBlob}, {20, r.update}, {8, r.overwrite}, {10, r.remove}, {2, r.removeMost},
		{3, r.createIndex}, {2, r.dropIndex}, {2, r.addColumn}, {1, r.reindex}, {1, r.userVersion},
		{1, r.dropTable}, {2, func(ctx context.Context, conn *sql.Conn, _ *table) error { return r.createTable(ctx, conn) }},
	}
	total := 0
	for _, w := range weighted {
		total += w.weight
	}
	p := r.rng.IntN(total)
	t := &r.tables[r.rng.IntN(len(r.tables))]
	for _, w := range weighted {
		if p -= w.weight; p < 0 {
			return w.run(ctx, conn, t)
		}
	}
	return nil
}

func (r *Random) createTable(ctx context.Context, conn *sql.Conn) error {
	if len(r.tables) >= r.cfg.MaxTables {
		return nil
	}
	t := table{name: fmt.Sprintf("t%d", r.next), withoutRowid: r.rng.IntN(3) == 0}
	r.next++
	stmt := fmt.Sprintf("CREATE TABLE %s(k INTEGER PRIMARY KEY, a INTEGER, b TEXT, c BLOB)", t.name)
	if t.withoutRowid {
		stmt = fmt.Sprintf("CREATE TABLE %s(k TEXT PRIMARY KEY, a INTEGER, b TEXT, c BLOB) WITHOUT ROWID", t.name)
	}
	if err := r.exec(ctx, conn, "create table", stmt); err != nil {
		return err
	}
	r.tables = append(r.tables, t)
	return nil
}

func (r *Random) dropTable(ctx context.Context, conn *sql.Conn, t *table) error {
	if err := r.exec(ctx, conn, "drop table", "DROP TABLE "+t.name); err != nil {
		return err
	}
	name := t.name
	r.tables = slices.DeleteFunc(r.tables, func(t table) bool { return t.name == name })
	return nil
}

// insert adds many small rows of every storage class.
func (r *Random) insert(ctx context.Context, conn *sql.Conn, t *table) error {
	if err := r.shrink(ctx, conn, t); err != nil {
		return err
	}
	return r.exec(ctx, conn, "insert", fmt.Sprintf(`WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n WHERE i < ?1)
		INSERT OR REPLACE INTO %s(k, a, b, c) SELECT %s, CASE i %% 4 WHEN 0 THEN NULL WHEN 1 THEN i * 1.5 ELSE i * ?2 END,
		printf('%%0*d', 1 + (i * 7) %% 40, i), zeroblob(i %% 90) FROM n`, t.name, t.key("?2 + i * 37")),
		1+r.rng.IntN(60), r.rng.IntN(20_000))
}

// key makes a key of the table's type of a number.
func (t *table) key(number string) string {
	if t.withoutRowid {
		return "printf('%08x', " + number + ")"
	}
	return number
}

func (r *Random) shrink(ctx context.Context, conn *sql.Conn, t *table) error {
	var n int
	if err := conn.QueryRowContext(ctx, "SELECT count(*) FROM "+t.name).Scan(&n); err != nil {
		return err
	}
	if n <= r.cfg.MaxRows {
		return nil
	}
	return r.exec(ctx, conn, "shrink", fmt.Sprintf("DELETE FROM %s WHERE coalesce(a, 0) %% 2 = 0", t.name))
}

// insertBlob adds one row whose blob has any size: none, within a page, or over many overflow pages.
func (r *Random) insertBlob(ctx context.Context, conn *sql.Conn, t *table) error {
	return r.exec(ctx, conn, "blob",
		fmt.Sprintf("INSERT OR REPLACE INTO %s(k, a, b, c) VALUES(%s, ?2, '', ?3)", t.name, t.key("?1")),
		r.rng.IntN(20_000), r.rng.Int64N(1<<40), r.blob())
}

func (r *Random) blob() []byte {
	size := r.rng.IntN(r.cfg.MaxBlob + 1)
	if r.rng.IntN(2) == 0 {
		size = r.rng.IntN(min(r.cfg.MaxBlob, 200) + 1)
	}
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(r.rng.Uint32())
	}
	return b
}

func (r *Random) update(ctx context.Context, conn *sql.Conn, t *table) error {
	return r.exec(ctx, conn, "update",
		fmt.Sprintf("UPDATE %s SET a = coalesce(a, 0) + 1, b = b || 'x' WHERE length(b) < 200 AND abs(coalesce(a, 0)) %% 7 = ?", t.name),
		r.rng.IntN(7))
}

// overwrite writes one page many times in one transaction.
func (r *Random) overwrite(ctx context.Context, conn *sql.Conn, t *table) error {
	for range 20 {
		err := r.exec(ctx, conn, "overwrite",
			fmt.Sprintf("UPDATE %s SET a = ?, c = ? WHERE k = (SELECT min(k) FROM %s)", t.name, t.name),
			r.rng.IntN(1000), r.blob())
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Random) remove(ctx context.Context, conn *sql.Conn, t *table) error {
	return r.exec(ctx, conn, "delete", fmt.Sprintf("DELETE FROM %s WHERE length(c) %% 5 = ?", t.name), r.rng.IntN(5))
}

func (r *Random) removeMost(ctx context.Context, conn *sql.Conn, t *table) error {
	return r.exec(ctx, conn, "delete most", fmt.Sprintf("DELETE FROM %s WHERE length(c) %% 10 > 0", t.name))
}

func (r *Random) createIndex(ctx context.Context, conn *sql.Conn, t *table) error {
	if len(t.indexes) >= 3 {
		return nil
	}
	name := fmt.Sprintf("i%d", r.next)
	r.next++
	columns := []string{"a", "b, a", "length(c)", "a DESC, k"}[r.rng.IntN(4)]
	if err := r.exec(ctx, conn, "create index", fmt.Sprintf("CREATE INDEX %s ON %s(%s)", name, t.name, columns)); err != nil {
		return err
	}
	t.indexes = append(t.indexes, name)
	return nil
}

func (r *Random) dropIndex(ctx context.Context, conn *sql.Conn, t *table) error {
	if len(t.indexes) == 0 {
		return nil
	}
	if err := r.exec(ctx, conn, "drop index", "DROP INDEX "+t.indexes[0]); err != nil {
		return err
	}
	t.indexes = t.indexes[1:]
	return nil
}

func (r *Random) addColumn(ctx context.Context, conn *sql.Conn, t *table) error {
	if t.extra >= 3 {
		return nil
	}
	t.extra++
	return r.exec(ctx, conn, "add column", fmt.Sprintf("ALTER TABLE %s ADD COLUMN x%d TEXT DEFAULT 'd%d'", t.name, t.extra, t.extra))
}

func (r *Random) reindex(ctx context.Context, conn *sql.Conn, t *table) error {
	if r.rng.IntN(2) == 0 {
		return r.exec(ctx, conn, "analyze", "ANALYZE "+t.name)
	}
	return r.exec(ctx, conn, "reindex", "REINDEX "+t.name)
}

func (r *Random) userVersion(ctx context.Context, conn *sql.Conn, _ *table) error {
	return r.exec(ctx, conn, "user_version", fmt.Sprintf("PRAGMA user_version=%d", r.rng.IntN(1<<30)))
}
