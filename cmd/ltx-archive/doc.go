// Command ltx-archive owns the command line of the archive: running an archiver,
// restoring, listing, verifying and pruning.
//
// It does no work of its own on files or streams; see packages archiver,
// compactor and restore.
package main
