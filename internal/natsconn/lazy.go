package natsconn

import (
	"context"
	"log/slog"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Lazy connects when it is first needed, so that what is wrong with the rest of a
// command line shows without a server. Not safe for concurrent use.
type Lazy struct {
	Flags  Flags
	Name   string // see Options
	Logger *slog.Logger

	conn *nats.Conn // nil: not connected
	js   jetstream.JetStream
}

// JetStream is that of the one connection; errors are those of [Flags.Connect].
func (l *Lazy) JetStream(ctx context.Context) (_ jetstream.JetStream, err error) {
	if l.conn == nil {
		l.conn, l.js, err = l.Flags.Connect(ctx, l.Name, l.Logger)
	}
	return l.js, err
}

// Conn is the connection, nil before it was needed.
func (l *Lazy) Conn() *nats.Conn { return l.conn }

// Close ends the connection, if there is one.
func (l *Lazy) Close() {
	if l.conn != nil {
		l.conn.Close()
	}
}
