package daemon

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"
)

// DefaultRepeatInterval is how often a repeated warning is logged.
const DefaultRepeatInterval = 10 * time.Second

// LogFlags is embedded in a command's flags.
type LogFlags struct {
	Level  string `name:"log-level" env:"LTX_LOG_LEVEL" enum:"debug,info,warn,error" default:"info" help:"Least level that is logged: debug, info, warn or error."`
	Format string `name:"log-format" env:"LTX_LOG_FORMAT" enum:"text,json" default:"text" help:"Log format: text or json."`
}

// Logger writes to w; repeated warnings and errors are limited to one per
// [DefaultRepeatInterval].
func (f LogFlags) Logger(w io.Writer) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.Level)); err != nil && f.Level != "" {
		return nil, fmt.Errorf("parse log level: %w", err)
	}
	opts := &slog.HandlerOptions{Level: level}
	var h slog.Handler = slog.NewTextHandler(w, opts)
	if f.Format == "json" {
		h = slog.NewJSONHandler(w, opts)
	}
	return slog.New(LimitRepeats(h, DefaultRepeatInterval)), nil
}

// LimitRepeats drops a warning or an error that equals one logged less than
// interval ago in level, message and the db attribute. The next one that passes
// has an attribute "repeated": how many were dropped. Info and Debug pass.
func LimitRepeats(h slog.Handler, interval time.Duration) slog.Handler {
	return &limiter{Handler: h, seen: &repeats{interval: interval, last: map[repeatKey]repeat{}}}
}

type limiter struct {
	slog.Handler
	db   string // from WithAttrs
	seen *repeats
}

func (l *limiter) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		return l.Handler.Handle(ctx, r)
	}
	db := l.db
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "db" {
			db = a.Value.String()
		}
		return true
	})
	dropped, pass := l.seen.pass(repeatKey{r.Level, r.Message, db}, r.Time)
	if !pass {
		return nil
	}
	if dropped > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("repeated", dropped))
	}
	return l.Handler.Handle(ctx, r)
}

func (l *limiter) WithAttrs(attrs []slog.Attr) slog.Handler {
	db := l.db
	for _, a := range attrs {
		if a.Key == "db" {
			db = a.Value.String()
		}
	}
	return &limiter{Handler: l.Handler.WithAttrs(attrs), db: db, seen: l.seen}
}

func (l *limiter) WithGroup(name string) slog.Handler {
	return &limiter{Handler: l.Handler.WithGroup(name), db: l.db, seen: l.seen}
}

type repeatKey struct {
	level   slog.Level
	message string
	db      string
}

type repeat struct {
	logged  time.Time
	dropped int
}

const maxRepeatKeys = 4096

// repeats remembers what was logged when. Messages are constants, so the keys
// grow with the databases only; the bound is a net.
type repeats struct {
	interval time.Duration
	mu       sync.Mutex
	last     map[repeatKey]repeat
}

func (s *repeats) pass(k repeatKey, now time.Time) (dropped int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, known := s.last[k]
	if known && now.Sub(r.logged) < s.interval {
		r.dropped++
		s.last[k] = r
		return 0, false
	}
	if len(s.last) >= maxRepeatKeys {
		clear(s.last)
	}
	s.last[k] = repeat{logged: now}
	return r.dropped, true
}
