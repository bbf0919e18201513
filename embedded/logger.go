package embedded

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
)

// bridge is the nats-server's logger: warnings and errors go to slog under
// their level, notices to Debug. It keeps the first fatal text, because the
// server reports a failed start by no other way.
type bridge struct {
	logger *slog.Logger
	mu     struct {
		sync.Mutex
		fatal string
	}
}

func (b *bridge) log(level slog.Level, format string, v []any) {
	if b.logger.Enabled(context.Background(), level) {
		b.logger.Log(context.Background(), level, "embedded nats-server", "text", fmt.Sprintf(format, v...))
	}
}

func (b *bridge) Noticef(format string, v ...any) { b.log(slog.LevelDebug, format, v) }
func (b *bridge) Warnf(format string, v ...any)   { b.log(slog.LevelWarn, format, v) }
func (b *bridge) Errorf(format string, v ...any)  { b.log(slog.LevelError, format, v) }
func (b *bridge) Debugf(string, ...any)           {}
func (b *bridge) Tracef(string, ...any)           {}

func (b *bridge) Fatalf(format string, v ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.mu.fatal == "" {
		b.mu.fatal = fmt.Sprintf(format, v...)
	}
}

// reset forgets the fatal text of an earlier start.
func (b *bridge) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mu.fatal = ""
}

// fatal returns the first fatal text, empty when there was none.
func (b *bridge) fatal() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.mu.fatal
}
