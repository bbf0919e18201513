package main

import (
	"errors"
	"io/fs"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/stream"
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
	case errors.Is(err, publisher.ErrUnacknowledged):
		return daemon.Exit(daemon.ExitFailure, err, "nothing is lost: they are in the spool; start ltx-pub again once NATS is back")
	case errors.Is(err, stream.ErrPermission):
		return daemon.Exit(daemon.ExitFailure, err, "nothing was changed; allow the subject for this user; docs/operations.md lists those a publisher needs")
	case errors.Is(err, fs.ErrNotExist):
		return daemon.Exit(daemon.ExitNotFound, err, "start the application first, or correct the path")
	}
	return err
}
