package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

const defaultTimeout = 5 * time.Second

// apiPrefix is the start of every request subject, as the options of the
// JetStream context ask: a prefix of their own, a domain, or the default.
func apiPrefix(o jetstream.JetStreamOptions) string {
	switch {
	case o.APIPrefix != "" && o.APIPrefix[len(o.APIPrefix)-1] == '.':
		return o.APIPrefix
	case o.APIPrefix != "":
		return o.APIPrefix + "."
	case o.Domain != "":
		return "$JS." + o.Domain + ".API."
	}
	return jetstream.DefaultAPIPrefix
}

// answer is the response of one API call.
type answer interface{ apiError() *jetstream.APIError }

// request makes one API call, which gets the default timeout, or what is left of
// the context's.
func (s *Stream) request(ctx context.Context, call string, body []byte, into answer) error {
	timeout := s.js.Options().DefaultTimeout
	if timeout <= 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	subject := s.api + call
	nc := s.js.Conn()
	msg, err := nc.RequestWithContext(ctx, subject, body)
	if err != nil {
		return explain(nc, subject, err)
	}
	if err := json.Unmarshal(msg.Data, into); err != nil {
		return fmt.Errorf("decode answer of %s: %w", subject, err)
	}
	if e := into.apiError(); e != nil {
		return explain(nc, subject, e)
	}
	return nil
}

// Explain turns the error of an API call made through the jetstream package
// into one that says what is wrong: ErrNoStream, ErrNoJetStream,
// ErrPermission. call is the request subject after the API prefix, or its
// beginning.
func (s *Stream) Explain(call string, err error) error {
	return explain(s.js.Conn(), s.api+call, err)
}

// ExplainPublish does the same for the error of a publish on subject.
func (s *Stream) ExplainPublish(subject string, err error) error {
	return explain(s.js.Conn(), subject, err)
}
