// Package history makes the history of one real SQLite database: random
// transactions, each as an LTX file, and what the database was after each, to
// hold merged files and restores against.
package history
