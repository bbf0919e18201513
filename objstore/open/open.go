package open

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/azure"
	"github.com/ltxstream/ltxstream/objstore/dir"
	"github.com/ltxstream/ltxstream/objstore/gcs"
	"github.com/ltxstream/ltxstream/objstore/levels"
	natsobj "github.com/ltxstream/ltxstream/objstore/nats"
	"github.com/ltxstream/ltxstream/objstore/s3"
	"github.com/ltxstream/ltxstream/objstore/sftp"
)

// Options of [Archive]. Zero values mean the defaults.
type Options struct {
	// Write says that the archive will be written: a directory is made when its
	// first file comes.
	Write bool
	// NATS connects for nats:// URLs; nil: those are refused.
	NATS  func(context.Context) (jetstream.JetStream, error)
	Retry objstore.RetryConfig
}

// Forms are the URLs that [Archive] understands, for help texts.
const Forms = "file:///dir, nats://bucket/prefix, s3://bucket/prefix?endpoint=…&region=…, gs://bucket/prefix, abs://account@container/prefix, sftp://user@host/path, or the path of a directory"

// ErrURL says that a URL names no archive.
var ErrURL = errors.New("not the URL of an archive")

// Archive opens an archive for reading, or for both. Calls on it are tried again
// when they fail for a while. Nothing is asked of a server before the first use,
// save what a backend's documentation names. Errors wrap ErrURL where the URL is
// at fault.
func Archive(ctx context.Context, raw string, o Options) (*levels.Archive, error) {
	u, err := parse(raw)
	if err != nil {
		return nil, err
	}
	store, layout, err := o.store(ctx, u)
	if err != nil {
		return nil, err
	}
	return levels.New(objstore.Retry(store, o.Retry), layout), nil
}

func parse(raw string) (*url.URL, error) {
	if !strings.Contains(raw, "://") {
		if raw == "" || strings.HasPrefix(raw, "-") {
			return nil, fmt.Errorf("%w: %q; want %s", ErrURL, raw, Forms)
		}
		return &url.URL{Scheme: "file", Path: raw}, nil
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %w; want %s", ErrURL, err, Forms)
	}
	return u, nil
}

func (o Options) store(ctx context.Context, u *url.URL) (objstore.Store, levels.Layout, error) {
	switch u.Scheme {
	case "file":
		create := func(cfg dir.Config) dir.Config {
			cfg.Create = cfg.Create || o.Write
			return cfg
		}
		return opened(ctx, u, levels.Decimal, dir.ParseURL, create, dir.New)
	case "nats":
		if o.NATS == nil {
			return nil, 0, fmt.Errorf("%w: nats:// needs a NATS connection, and there is none here", ErrURL)
		}
		connect := func(ctx context.Context, cfg natsobj.Config) (*natsobj.Store, error) {
			js, err := o.NATS(ctx)
			if err != nil {
				return nil, err
			}
			cfg.JS = js
			return natsobj.New(ctx, cfg)
		}
		create := func(cfg natsobj.Config) natsobj.Config {
			cfg.Create = cfg.Create || o.Write
			return cfg
		}
		return opened(ctx, u, levels.Decimal, natsobj.ParseURL, create, connect)
	case "s3":
		return opened(ctx, u, levels.Hex, s3.ParseURL, as[s3.Config], s3.New)
	case "gs":
		return opened(ctx, u, levels.Decimal, gcs.ParseURL, as[gcs.Config], gcs.New)
	case "abs":
		return opened(ctx, u, levels.Decimal, azure.ParseURL, as[azure.Config], azure.New)
	case "sftp":
		return opened(ctx, u, levels.Decimal, sftp.ParseURL, as[sftp.Config], sftp.New)
	}
	return nil, 0, fmt.Errorf("%w: scheme %q; want %s", ErrURL, u.Scheme, Forms)
}

// opened makes a store of a URL: its configuration, what we add to it, the store.
func opened[C any, S objstore.Store](ctx context.Context, u *url.URL, layout levels.Layout, parse func(*url.URL) (C, error), add func(C) C, open func(context.Context, C) (S, error)) (objstore.Store, levels.Layout, error) {
	cfg, err := parse(u)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrURL, err)
	}
	s, err := open(ctx, add(cfg))
	if err != nil {
		return nil, 0, err
	}
	return s, layout, nil
}

// as adds nothing.
func as[C any](cfg C) C { return cfg }
