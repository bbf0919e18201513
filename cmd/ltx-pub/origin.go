package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/internal/daemon"
	"github.com/ltxstream/ltxstream/internal/litestream"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/objstore/open"
	"github.com/ltxstream/ltxstream/wire"
)

// origins are the archives of Litestream's whose numbers the databases take over.
type origins map[wire.DB]place

// place is one of them.
type place struct {
	url   string
	names []string // of the database there, to be tried in this order
}

// parseOrigins reads --from-litestream. A URL with a name is that database's own
// folder. One without is for all that have none: the folder above theirs, or, of a
// single database, that one itself too.
func parseOrigins(values []string, targets []daemon.Target) (origins, error) {
	places, err := daemon.ParsePlaces("--from-litestream", values)
	if err != nil {
		return nil, err
	}
	o := origins{}
	var errs []error
	var rest *daemon.Place
	for _, p := range places {
		_, twice := o[p.DB]
		switch {
		case p.DB == "" && rest != nil:
			errs = append(errs, fmt.Errorf("--from-litestream %s and %s: one URL without a name is for all databases", rest.URL, p.URL))
		case p.DB == "":
			rest = &p
		case !has(targets, p.DB):
			errs = append(errs, fmt.Errorf("--from-litestream %s=%s: no such database is published", p.DB, p.URL))
		case twice:
			errs = append(errs, fmt.Errorf("--from-litestream %s=%s: given twice", p.DB, p.URL))
		default:
			o[p.DB] = place{p.URL, []string{levels.Root}}
		}
	}
	if rest != nil {
		o.add(rest.URL, targets)
	}
	return o, daemon.Exit(daemon.ExitUsage, errors.Join(errs...), "nothing was done")
}

// add sets the folder above for the databases that have none.
func (o origins) add(url string, targets []daemon.Target) {
	for _, t := range targets {
		names := []string{string(t.DB)}
		if len(targets) == 1 {
			names = append(names, levels.Root)
		}
		if _, own := o[t.DB]; !own {
			o[t.DB] = place{url, names}
		}
	}
}

func has(targets []daemon.Target, db wire.DB) bool {
	for _, t := range targets {
		if t.DB == db {
			return true
		}
	}
	return false
}

// after returns what tells a publisher the end of its archive; nil: it continues
// none. Nothing is asked of a storage before the publisher asks.
func (o origins) after(t daemon.Target, js jetstream.JetStream, logger *slog.Logger) func(context.Context) (ltx.TXID, error) {
	p, ok := o[t.DB]
	if !ok {
		return nil
	}
	return func(ctx context.Context) (end ltx.TXID, err error) {
		a, err := open.Archive(ctx, p.url, open.Options{
			NATS:  func(context.Context) (jetstream.JetStream, error) { return js, nil },
			Retry: objstore.RetryConfig{Logger: logger},
		})
		if err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, a.Store().Close()) }()
		return litestream.Origin{Archive: a, Names: p.names, Path: t.Path, Logger: logger}.End(ctx)
	}
}
