package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// Errors that callers branch on.
var (
	// ErrNoStream says that the stream does not exist.
	ErrNoStream = errors.New("stream does not exist")
	// ErrNoJetStream says that nobody answers for JetStream: it is disabled,
	// the account has none, or the domain is out of reach.
	ErrNoJetStream = errors.New("no JetStream (disabled on the server or for this account, or wrong domain)")
	// ErrPermission says that the server denied a subject.
	ErrPermission = errors.New("permission denied by the NATS server")
	// ErrNotFound says that the stream holds no such message.
	ErrNotFound = errors.New("message not in the stream")
)

// Kind is what a caller does about an error of NATS.
type Kind int

const (
	// None is the kind of a nil error.
	None Kind = iota
	// Transient errors pass: try again.
	Transient
	// Permanent errors do not pass by themselves.
	Permanent
	// WrongSequence: another message came first (or is in flight).
	WrongSequence
	// Full: a limit of the stream, the account or the disk is reached.
	Full
	// NotFound: no such message.
	NotFound
	// NoStream: the stream does not exist.
	NoStream
	// Canceled: the caller's context ended.
	Canceled
)

func (k Kind) String() string {
	return [...]string{"none", "transient", "permanent", "wrong sequence", "full", "not found", "no stream", "canceled"}[k]
}

// Error codes of the server that nats.go has no name for.
const (
	codeAccountResources = 10002
	codeInsufficient     = 10023
	codeMemoryExceeded   = 10028
	codeStorageExceeded  = 10047
	codeCreateFailed     = 10049
	codeStoreFailed      = 10077
	codeHeaderTooLarge   = 10097
	codeQueueFull        = 10167
)

// Classify decides what to do about err: the one place that knows the codes.
func Classify(err error) Kind {
	switch {
	case err == nil:
		return None
	case errors.Is(err, context.Canceled):
		return Canceled
	case errors.Is(err, ErrNotFound), errors.Is(err, jetstream.ErrMsgNotFound):
		return NotFound
	case errors.Is(err, ErrNoStream):
		return NoStream
	case errors.Is(err, ErrPermission), errors.Is(err, nats.ErrPermissionViolation), errors.Is(err, nats.ErrConnectionClosed),
		errors.Is(err, nats.ErrMaxPayload), errors.Is(err, nats.ErrAuthorization):
		return Permanent
	}
	if _, ok := errors.AsType[*LossyError](err); ok {
		return Permanent
	}
	if api := apiErrorOf(err); api != nil {
		return classifyCode(api)
	}
	return Transient
}

func classifyCode(e *jetstream.APIError) Kind {
	switch e.ErrorCode {
	case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
		return WrongSequence
	case codeStoreFailed, codeAccountResources, codeInsufficient, codeMemoryExceeded, codeStorageExceeded:
		return Full
	case jetstream.JSErrCodeMessageNotFound:
		return NotFound
	case jetstream.JSErrCodeStreamNotFound:
		return NoStream
	case jetstream.JSErrCodeJetStreamNotEnabled, jetstream.JSErrCodeJetStreamNotEnabledForAccount,
		jetstream.JSErrCodeStreamMessageExceedsMaximum, codeHeaderTooLarge:
		return Permanent
	case codeQueueFull, jetstream.JSErrCodeConsumerNotFound, jetstream.JSErrCodeConsumerDoesNotExist:
		return Transient
	}
	if e.Code >= 400 && e.Code < 500 && e.Code != 408 && e.Code != 429 {
		return Permanent
	}
	return Transient
}

// apiErrorOf finds the server's answer in err.
func apiErrorOf(err error) *jetstream.APIError {
	if e, ok := errors.AsType[*jetstream.APIError](err); ok {
		return e
	}
	if e, ok := errors.AsType[jetstream.JetStreamError](err); ok {
		return e.APIError()
	}
	return nil
}

// explain turns what a request to subject came back with into an error that
// says what is wrong. A denied subject shows only as silence, and as the
// connection's last error.
func explain(nc *nats.Conn, subject string, err error) error {
	if api := apiErrorOf(err); api != nil {
		switch api.ErrorCode {
		case jetstream.JSErrCodeStreamNotFound:
			return fmt.Errorf("%w: %w", ErrNoStream, err)
		case jetstream.JSErrCodeMessageNotFound:
			return fmt.Errorf("%w: %w", ErrNotFound, err)
		case jetstream.JSErrCodeJetStreamNotEnabled, jetstream.JSErrCodeJetStreamNotEnabledForAccount:
			return fmt.Errorf("%w: %w", ErrNoJetStream, err)
		}
		return err
	}
	if errors.Is(err, nats.ErrNoResponders) {
		return fmt.Errorf("%w: %w", ErrNoJetStream, err)
	}
	if errors.Is(err, nats.ErrTimeout) || errors.Is(err, context.DeadlineExceeded) {
		if denied(nc, subject) {
			return fmt.Errorf("%w: %s", ErrPermission, subject)
		}
		return fmt.Errorf("no answer on %s: %w", subject, err)
	}
	return err
}

// denied reports whether the server's last complaint was about subject, or
// about receiving answers at all.
func denied(nc *nats.Conn, subject string) bool {
	last := nc.LastError()
	if !errors.Is(last, nats.ErrPermissionViolation) {
		return false
	}
	text := strings.ToLower(last.Error())
	return strings.Contains(text, strings.ToLower(subject)) || strings.Contains(text, "subscription to")
}
