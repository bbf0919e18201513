package natsconn

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Kind is what is in the way to a NATS server.
type Kind int

// The kinds of [Error].
const (
	Other       Kind = iota // none of these
	Absent                  // nothing listens, the name does not resolve, no answer
	Refused                 // the server does not accept the credentials
	Insecure                // TLS: one side wants it, or does not trust the other
	NoJetStream             // connected, but JetStream is not enabled
	Denied                  // connected, but a subject is not permitted
	BadFlags                // flags, variables, files or the context are at fault
)

// Error is a failure to connect or to use a connection.
type Error struct {
	Kind   Kind
	URL    string // redacted; empty when unknown
	Domain string // JetStream domain; empty for none
	Err    error
}

func (e *Error) Error() string {
	if e.Kind == BadFlags {
		return e.Err.Error()
	}
	what := map[Kind]string{
		Absent:      "nothing answers",
		Refused:     "the server refuses these credentials",
		Insecure:    "no TLS agreement",
		NoJetStream: "JetStream is not enabled there",
		Denied:      "this user lacks a permission",
	}[e.Kind]
	where := "use nats"
	if e.URL != "" {
		where = "connect to nats " + e.URL
	}
	if e.Domain != "" {
		where += " domain " + e.Domain
	}
	if what == "" {
		return fmt.Sprintf("%s: %v", where, e.Err)
	}
	return fmt.Sprintf("%s: %s: %v", where, what, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ExitCode is 2 for faults of the command line, else 1.
func (e *Error) ExitCode() int {
	if e.Kind == BadFlags {
		return 2
	}
	return 1
}

// Hint is what is safe and the next step for an operator; may be empty.
func (e *Error) Hint() string {
	const safe = "databases and stream are untouched; "
	switch e.Kind {
	case Absent:
		return safe + "start the server, or name another with --server or --context; try: nats server ping -s " + orDefault(e.URL)
	case Refused:
		return safe + "check --creds, --nkey, --user and --password, --token; try: nats rtt -s " + orDefault(e.URL)
	case Insecure:
		return safe + "check --tlsca, --tlscert, --tlskey and the scheme of --server (tls://)"
	case NoJetStream:
		return safe + "enable jetstream in the server's configuration, use --js-domain for another domain, or run ltx-pub with --embedded; try: nats account info"
	case Denied:
		return safe + "allow the subject named above for this user, or set --inbox-prefix if it is an inbox; docs/operations.md lists those each command needs"
	}
	return ""
}

func orDefault(url string) string {
	if url == "" || strings.HasPrefix(url, "context ") {
		return DefaultURL
	}
	return url
}

// connectError makes an Error of nats.Connect's error and the last dial error.
func connectError(url string, err, dial error) *Error {
	e := &Error{Kind: kindOf(err), URL: Redact(url), Err: err}
	if dial != nil && errors.Is(err, nats.ErrNoServers) {
		e.Err = dial
	}
	return e
}

// kindOf is the one place that knows how NATS errors look.
func kindOf(err error) Kind {
	switch {
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired),
		errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrAccountAuthExpired):
		return Refused
	case errors.Is(err, nats.ErrPermissionViolation):
		return Denied
	case errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return NoJetStream
	case isTLS(err):
		return Insecure
	case errors.Is(err, nats.ErrNoServers), errors.Is(err, nats.ErrConnectionClosed),
		errors.Is(err, nats.ErrConnectionReconnecting), isTimeout(err), isNet(err):
		return Absent
	}
	return Other
}

func isTLS(err error) bool {
	if errors.Is(err, nats.ErrSecureConnRequired) || errors.Is(err, nats.ErrSecureConnWanted) {
		return true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return true
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.UnknownAuthorityError](err)
	return ok || err != nil && strings.Contains(err.Error(), "tls: ")
}

func isTimeout(err error) bool {
	return errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded)
}

func isNet(err error) bool {
	_, ok := errors.AsType[net.Error](err)
	return ok
}

// Diagnose makes an [*Error] of what a request over nc failed with, when the
// connection is the reason: a denied subject, which shows only as a timeout and
// an asynchronous error, absent JetStream, a lost connection. Any other error,
// nil included, is returned as it is.
func Diagnose(nc *nats.Conn, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	url := nc.ConnectedUrlRedacted()
	last := nc.LastError()
	switch kind := kindOf(err); {
	case isTimeout(err) && errors.Is(last, nats.ErrPermissionViolation):
		return &Error{Kind: Denied, URL: url, Err: errors.Join(err, last)}
	case kind == Denied, kind == NoJetStream:
		return &Error{Kind: kind, URL: url, Err: err}
	case kind == Absent && !nc.IsConnected():
		return &Error{Kind: Absent, URL: url, Err: err}
	}
	return err
}
