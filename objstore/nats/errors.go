package natsobj

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/objstore"
)

// Errors of requests that callers in this package branch on.
var (
	errNoMessage = errors.New("no such message")
	errNoBucket  = errors.New("no such bucket")
	errConflict  = errors.New("another message came first")
	// errUnsure marks a request that may have been carried out.
	errUnsure = errors.New("no answer")
)

// Codes of the server that nats.go has no name for.
const (
	codeAccountResources = 10002
	codeInsufficient     = 10023
	codeMemoryExceeded   = 10028
	codeStorageExceeded  = 10047
	codeNoReplicas       = 10074
	codeStoreFailed      = 10077
)

// explain says what an error of NATS means; ctx is that of the request to
// subject. It is the one place that decides what may be tried again.
func (s *Store) explain(ctx context.Context, subject string, err error) error {
	cause := context.Cause(ctx)
	switch {
	case cause == errUnsure:
		if s.inboxDenied() {
			return fmt.Errorf("%w: the NATS server does not let this user subscribe to %s.>, where answers arrive", fs.ErrPermission, s.inboxes())
		}
		return objstore.Transient(fmt.Errorf("%w on %s within %s", errUnsure, subject, s.cfg.Timeout))
	case cause != nil: // denied, or the caller's
		return cause
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked), errors.Is(err, nats.ErrPermissionViolation):
		return fmt.Errorf("%w: %w", fs.ErrPermission, err)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, nats.ErrReconnectBufExceeded):
		return objstore.Transient(fmt.Errorf("%s: %w", subject, err)) // it was not carried out
	case errors.Is(err, nats.ErrConnectionClosed), errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrInvalidConnection), errors.Is(err, nats.ErrBadSubject):
		return fmt.Errorf("%s: %w", subject, err)
	}
	return objstore.Transient(fmt.Errorf("%w on %s: %w", errUnsure, subject, err))
}

// refused says what the server's refusal means.
func (s *Store) refused(e *jetstream.APIError) error {
	switch e.ErrorCode {
	case jetstream.JSErrCodeStreamNotFound:
		return s.noBucket()
	case jetstream.JSErrCodeMessageNotFound:
		return errNoMessage
	case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
		return errConflict
	case jetstream.JSErrCodeJetStreamNotEnabled, jetstream.JSErrCodeJetStreamNotEnabledForAccount:
		return fmt.Errorf("no JetStream on this server or for this account: %w", e)
	case codeStoreFailed, codeAccountResources, codeInsufficient, codeMemoryExceeded, codeStorageExceeded:
		return fmt.Errorf("bucket %s is full, or its account or disk: raise the limit or remove objects: %w", s.cfg.Bucket, e)
	}
	if e.Code >= 400 && e.Code < 500 && e.Code != 408 && e.Code != 429 || e.ErrorCode == codeNoReplicas {
		return fmt.Errorf("bucket %s: %w", s.cfg.Bucket, e)
	}
	return objstore.Transient(fmt.Errorf("bucket %s: %w", s.cfg.Bucket, e))
}

func (s *Store) noBucket() error {
	return fmt.Errorf("%w: %s (stream %s): create it by `nats object add %s --replicas %d`", errNoBucket, s.cfg.Bucket, s.stream, s.cfg.Bucket, s.cfg.Replicas)
}

// named gives err the operation and the key; a missing object is fs.ErrNotExist.
func named(op, key string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, errNoMessage) {
		err = fs.ErrNotExist
	}
	return fmt.Errorf("%s %s: %w", op, key, err)
}

// denied returns an error where last says that the server denied subject. A
// denial shows as silence, and as the last error of the connection.
func denied(last error, subject string) error {
	if !errors.Is(last, nats.ErrPermissionViolation) || !strings.Contains(strings.ToLower(last.Error()), `"`+strings.ToLower(subject)+`"`) {
		return nil
	}
	return fmt.Errorf("%w: the NATS server does not let this user publish to %s", fs.ErrPermission, subject)
}

func (s *Store) inboxDenied() bool {
	last := s.nc.LastError()
	return errors.Is(last, nats.ErrPermissionViolation) &&
		strings.Contains(strings.ToLower(last.Error()), `subscription to "`+strings.ToLower(s.inboxes()))
}

// inboxes is the prefix of the subjects on which the connection gets answers.
func (s *Store) inboxes() string {
	if p := s.nc.Opts.InboxPrefix; p != "" {
		return p
	}
	return strings.TrimSuffix(nats.InboxPrefix, ".")
}
