package main

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/ltxstream/ltxstream/archiver"
	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/open"
	"github.com/ltxstream/ltxstream/restore"
	"github.com/ltxstream/ltxstream/restore/generations"
)

// explain gives an error its exit code, what is safe, and the next step.
func explain(err error) error {
	if err == nil {
		return nil
	}
	if _, done := errors.AsType[*daemon.ExitError](err); done {
		return err
	}
	_, damage := errors.AsType[*restore.DamageError](err)
	_, broken := errors.AsType[*levels.DamageError](err)
	_, wrong := errors.AsType[*restore.VerifyError](err)
	_, plan := errors.AsType[*restore.PlanError](err)
	_, early := errors.AsType[*restore.TimeError](err)
	_, chain := errors.AsType[*restore.ChainError](err)
	_, target := errors.AsType[*generations.TargetError](err)
	hole, missing := errors.AsType[*generations.GapError](err)
	_, gap := errors.AsType[*feed.GapError](err)
	_, fork := errors.AsType[*feed.ForkError](err)
	switch {
	case errors.Is(err, open.ErrURL):
		return daemon.Exit(daemon.ExitUsage, err, "nothing was done")
	case errors.Is(err, archiver.ErrFolder):
		return daemon.Exit(daemon.ExitUsage, err, "nothing was written; --to NAME=URL continues what is there as database NAME; for other databases take another URL")
	case errors.Is(err, restore.ErrOutputExists):
		return daemon.Exit(daemon.ExitUsage, err, "nothing was changed; --force replaces it, or choose another output")
	case errors.Is(err, restore.ErrOutputInUse):
		return daemon.Exit(daemon.ExitFenced, err, "nothing was changed; stop the process, or restore to another path and swap the files yourself")
	case errors.Is(err, restore.ErrOutputDir), errors.Is(err, restore.ErrNoDir):
		return daemon.Exit(daemon.ExitUsage, err, "nothing was changed; OUTPUT is the path of the database file")
	case errors.Is(err, restore.ErrBusy):
		return daemon.Exit(daemon.ExitFenced, err, "nothing was changed; wait for it, or choose another output")
	case damage, broken, wrong, errors.Is(err, ltxfile.ErrDamaged):
		return daemon.Exit(daemon.ExitUnverified, err, "no output was made of it; see what is damaged: ltx-archive verify URL NAME --read-data full")
	case missing:
		return daemon.Exit(daemon.ExitGap, err, fmt.Sprintf("no output was made; what comes before it can be restored: --generation %s with --timestamp, or with --index of a WAL before %s", hole.Generation, hole.Index))
	case plan, early, target:
		return daemon.Exit(daemon.ExitNotFound, err, "no output was made; see which points there are: ltx-archive ls URL NAME")
	case chain, errors.Is(err, compactor.ErrChain), errors.Is(err, compactor.ErrOtherHistory):
		return daemon.Exit(daemon.ExitGap, err, "nothing was changed; two databases seem to share this place: give each a name or a prefix of its own")
	case gap, fork:
		return daemon.Exit(daemon.ExitGap, err, "the stream does not continue the archive; --no-stream restores what the archive has")
	case errors.Is(err, stream.ErrNoStream):
		return daemon.Exit(daemon.ExitNotFound, err, "start ltx-pub, which makes the stream, or name it with --stream")
	case errors.Is(err, fs.ErrPermission):
		return daemon.Exit(daemon.ExitFailure, err, "the storage refuses these credentials, or they do not suffice; docs/operations.md lists what is needed")
	case errors.Is(err, stream.ErrPermission):
		return daemon.Exit(daemon.ExitFailure, err, "allow the subject for this user; docs/operations.md lists those an archiver needs")
	}
	return err
}
