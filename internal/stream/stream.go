package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/wire"
)

// DuplicateWindow is how long the server of a stream that we create remembers
// message ids.
const DuplicateWindow = 30 * time.Second

// Config says which stream a publisher wants. The zero value asks for
// wire.DefaultStream on one replica without limits.
type Config struct {
	Name     string        // default wire.DefaultStream
	Replicas int           // default 1; used at creation only
	Retain   time.Duration // age limit; 0 keeps everything until it is trimmed
	MaxBytes int64         // size limit; 0 is none; used at creation only
	// DB narrows the check of an existing stream's subjects to those of one
	// database; empty asks for wire.StreamSubjects.
	DB wire.DB
	// AcceptLossy takes an existing stream whose settings can lose data.
	AcceptLossy bool
}

// Stream is a handle on one stream. It is safe for concurrent use.
type Stream struct {
	js     jetstream.JetStream
	name   string
	api    string // request subject prefix, with its final dot
	config jetstream.StreamConfig
}

// State is what the stream holds of all databases together.
type State struct {
	First, Last uint64    // sequences; First = Last+1 when empty
	Messages    uint64    // in number
	Bytes       uint64    // on disk
	Created     time.Time // tells a recreated stream from the old one
}

// Ensure returns the stream, after creating it when absent. An existing one is
// not altered: settings by which it could lose data are a [*LossyError] unless
// cfg.AcceptLossy. Other errors: ErrNoJetStream, ErrPermission.
func Ensure(ctx context.Context, js jetstream.JetStream, cfg Config) (*Stream, error) {
	cfg = cfg.withDefaults()
	s, err := Open(ctx, js, cfg.Name)
	if errors.Is(err, ErrNoStream) {
		s, err = create(ctx, js, cfg)
	}
	if err != nil {
		return nil, err
	}
	if faults := lossy(s.config, cfg); len(faults) > 0 && !cfg.AcceptLossy {
		return nil, &LossyError{Stream: cfg.Name, Settings: faults}
	}
	return s, nil
}

// Open returns the stream called name ("" is wire.DefaultStream) and never
// creates it: ErrNoStream when absent. Other errors: ErrNoJetStream,
// ErrPermission.
func Open(ctx context.Context, js jetstream.JetStream, name string) (*Stream, error) {
	if name == "" {
		name = wire.DefaultStream
	}
	s := &Stream{js: js, name: name, api: apiPrefix(js.Options())}
	info, err := s.info(ctx)
	if err != nil {
		return nil, fmt.Errorf("open stream %s: %w", name, err)
	}
	s.config = info.Config
	return s, nil
}

// Name returns the stream's name.
func (s *Stream) Name() string { return s.name }

// Config returns the stream's settings as they were when it was opened.
func (s *Stream) Config() jetstream.StreamConfig { return s.config }

// State asks the server for the stream's first and last sequence.
func (s *Stream) State(ctx context.Context) (State, error) {
	info, err := s.info(ctx)
	if err != nil {
		return State{}, fmt.Errorf("read state of stream %s: %w", s.name, err)
	}
	return State{
		First:    info.State.FirstSeq,
		Last:     info.State.LastSeq,
		Messages: info.State.Msgs,
		Bytes:    info.State.Bytes,
		Created:  info.Created,
	}, nil
}

// streamInfo is the part of the server's answer that is used here.
type streamInfo struct {
	Error   *jetstream.APIError    `json:"error"`
	Config  jetstream.StreamConfig `json:"config"`
	Created time.Time              `json:"created"`
	State   jetstream.StreamState  `json:"state"`
	Total   int                    `json:"total"` // subjects that match a filter
}

func (i *streamInfo) apiError() *jetstream.APIError { return i.Error }

type purgeAnswer struct {
	Error  *jetstream.APIError `json:"error"`
	Purged uint64              `json:"purged"`
}

func (a *purgeAnswer) apiError() *jetstream.APIError { return a.Error }

func (s *Stream) info(ctx context.Context) (*streamInfo, error) {
	var info streamInfo
	if err := s.request(ctx, "STREAM.INFO."+s.name, nil, &info); err != nil {
		return nil, err
	}
	return &info, nil
}

// How often, and with which pause, a stream is created that was deleted a moment
// ago: nats-server 2.15 may still be at that, and fails then.
const (
	createTries = 10
	createPause = 100 * time.Millisecond
)

// create returns the stream that another process made meanwhile, too.
func create(ctx context.Context, js jetstream.JetStream, cfg Config) (*Stream, error) {
	for try := 1; ; try++ {
		_, err := js.CreateStream(ctx, cfg.settings())
		if s, missing := Open(ctx, js, cfg.Name); missing == nil {
			return s, nil
		} else if err == nil {
			return nil, missing
		}
		if api := apiErrorOf(err); try == createTries || api == nil || api.ErrorCode != codeCreateFailed {
			subject := apiPrefix(js.Options()) + "STREAM.CREATE." + cfg.Name
			return nil, fmt.Errorf("create stream %s: %w", cfg.Name, explain(js.Conn(), subject, err))
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(createPause):
		}
	}
}

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = wire.DefaultStream
	}
	c.Replicas = max(c.Replicas, 1)
	return c
}

// settings are those of a stream that we create ourselves.
func (c Config) settings() jetstream.StreamConfig {
	maxBytes := int64(-1)
	if c.MaxBytes > 0 {
		maxBytes = c.MaxBytes
	}
	return jetstream.StreamConfig{
		Name:        c.Name,
		Description: "level-0 LTX files of SQLite databases",
		Subjects:    []string{wire.StreamSubjects},
		Storage:     jetstream.FileStorage,
		Retention:   jetstream.LimitsPolicy,
		Discard:     jetstream.DiscardNew,
		Compression: jetstream.NoCompression,
		MaxAge:      c.Retain,
		MaxBytes:    maxBytes,
		MaxMsgs:     -1,
		Replicas:    c.Replicas,
		AllowDirect: true,
		Duplicates:  c.duplicates(),
	}
}

// duplicates keeps the window inside the age limit, as the server demands.
func (c Config) duplicates() time.Duration {
	if c.Retain > 0 {
		return min(DuplicateWindow, c.Retain)
	}
	return DuplicateWindow
}
