package main

import (
	"errors"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/replica"
	"github.com/ltxstream/ltxstream/subscriber"
)

// explain gives a subscriber's error its exit code and, where its text does not
// say them, what is safe and the next step.
func explain(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, subscriber.ErrLocked):
		return daemon.Exit(daemon.ExitFenced, err, "the replica was not changed; another process keeps it, or writes to it; see: ltx-sub status")
	case errors.Is(err, replica.ErrDiverged):
		return daemon.Exit(daemon.ExitGap, err, "the replica was not changed; move the file and its state directory away to begin anew")
	case errors.Is(err, stream.ErrNoStream):
		return daemon.Exit(daemon.ExitNotFound, err, "the replica was not changed; start ltx-pub, which makes the stream, or name it with --stream")
	case errors.Is(err, stream.ErrPermission):
		return daemon.Exit(daemon.ExitFailure, err, "the replica was not changed; allow the subject for this user; docs/operations.md lists those a subscriber needs")
	}
	return err
}
