// Package oracle owns the judgement whether two SQLite files hold the same database.
//
// A Snapshot reads one file through SQLite itself, inside one read transaction: header values, schema, every row of every
// table with its storage class, every page, integrity_check. Diff compares two of them and names the first thing that differs.
//
// What is compared, in this order: page size, encoding, auto_vacuum, user_version, application_id; sqlite_schema (root pages
// included); each table's rows in rowid or primary-key order; the page count; every page 1 … page count except the lock page,
// with the content of free pages. DiffRows leaves out what a rebuild of the file may change: page size, auto_vacuum, root pages,
// and all pages.
//
// The rolling checksum is XOR of ltx.ChecksumPage over those pages, with ltx.ChecksumFlag: the number that LTX positions carry.
//
// Invariants: it opens read-only, so its last close neither checkpoints nor deletes a WAL; it never opens a database file other
// than through SQLite, so it never drops a lock of this process. Virtual tables are judged by their shadow tables.
// A Snapshot reads all pages into memory: databases up to 2 GiB, and twice that much memory for a moment.
package oracle
