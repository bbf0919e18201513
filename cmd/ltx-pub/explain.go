package main

import (
	"errors"
	"io/fs"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/litestream"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/objstore/open"
	"github.com/ltxstream/ltxstream/publisher"
)

// explain gives a publisher's error its exit code and, where its text does not
// say them, what is safe and the next step.
func explain(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*stream.LossyError](err); ok {
		return daemon.Exit(daemon.ExitFailure, err, "nothing was published; change the stream (nats stream edit), use another --stream, or --accept-lossy-stream")
	}
	switch {
	case errors.Is(err, publisher.ErrFenced):
		return daemon.Exit(daemon.ExitFenced, err, "the application goes on; nothing is lost; see who publishes: ltx-pub status")
	case errors.Is(err, publisher.ErrLocked):
		return daemon.Exit(daemon.ExitFenced, err, "nothing was changed; another process publishes this database already: ltx-pub status")
	case errors.Is(err, publisher.ErrDiverged):
		return daemon.Exit(daemon.ExitGap, err, "the database and the stream are untouched; restore the right file, or --force-reseed to make this one the truth")
	case errors.Is(err, publisher.ErrAhead):
		return daemon.Exit(daemon.ExitGap, err, "the application goes on; start a history of its own (another name or --stream, an empty place for ltx-archive, no --from-litestream), or --force-reseed goes on behind the archive's end")
	case errors.Is(err, litestream.ErrRunning):
		return daemon.Exit(daemon.ExitFenced, err, "nothing was published; stop Litestream for this database and start ltx-pub again")
	case errors.Is(err, litestream.ErrEmpty):
		return daemon.Exit(daemon.ExitNotFound, err, "nothing was published; --from-litestream takes the folder that holds ltx/ (on S3: 0000/), as NAME=URL, or the folder above it")
	case errors.Is(err, litestream.ErrGenerations):
		return daemon.Exit(daemon.ExitNotFound, err, "nothing was published; its numbers cannot be continued: start without --from-litestream and archive to a place of its own")
	case errors.Is(err, open.ErrURL):
		return daemon.Exit(daemon.ExitUsage, err, "nothing was published")
	case errors.Is(err, publisher.ErrAfter):
		return daemon.Exit(daemon.ExitFailure, err, "nothing was published, for the first TXID depends on it; correct the URL or the credentials of --from-litestream")
	case errors.Is(err, publisher.ErrUnacknowledged):
		return daemon.Exit(daemon.ExitFailure, err, "nothing is lost: they are in the spool; start ltx-pub again once NATS is back")
	case errors.Is(err, stream.ErrPermission):
		return daemon.Exit(daemon.ExitFailure, err, "nothing was changed; allow the subject for this user; docs/operations.md lists those a publisher needs")
	case errors.Is(err, fs.ErrNotExist):
		return daemon.Exit(daemon.ExitNotFound, err, "start the application first, or correct the path")
	}
	return err
}
