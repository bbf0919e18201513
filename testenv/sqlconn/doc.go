// Package sqlconn owns how test programs open SQLite: every setting that matters to replication is said in Options
// and nothing is left to the defaults of a driver.
//
// It uses go-sqlite3 and nothing of the product, so that what it opens is a plain SQLite connection like an application's.
// It keeps no connection and no state.
package sqlconn
