package stream

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/wire"
)

// Message is one stored data message: an LTX file or a part of one. Only the
// headers were validated.
type Message struct {
	Seq  uint64    // stream sequence
	Time time.Time // when the server stored it
	Meta wire.Meta
	Data []byte
}

// Get returns the message stored under seq, read from the stream's leader:
// ErrNotFound when there is none, a [*wire.HeaderError] when it is not a data
// message of ours.
func (s *Stream) Get(ctx context.Context, seq uint64) (*Message, error) {
	raw, err := s.raw(ctx, getRequest{Seq: seq})
	if err != nil {
		return nil, fmt.Errorf("get message %d of stream %s: %w", seq, s.name, err)
	}
	m, err := raw.message()
	if err != nil {
		return nil, fmt.Errorf("read message %d of stream %s: %w", seq, s.name, err)
	}
	return m, nil
}

// getRequest names one message: by sequence, the last on a subject, or the
// first at or after a sequence on a subject. Subjects may hold wildcards.
type getRequest struct {
	Seq  uint64 `json:"seq,omitempty"`
	Last string `json:"last_by_subj,omitempty"`
	Next string `json:"next_by_subj,omitempty"`
}

type getAnswer struct {
	Error   *jetstream.APIError `json:"error"`
	Message *rawMessage         `json:"message"`
}

func (a *getAnswer) apiError() *jetstream.APIError { return a.Error }

type rawMessage struct {
	Subject string    `json:"subject"`
	Seq     uint64    `json:"seq"`
	Headers []byte    `json:"hdrs"`
	Data    []byte    `json:"data"`
	Time    time.Time `json:"time"`
}

func (s *Stream) raw(ctx context.Context, req getRequest) (*rawMessage, error) {
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	var a getAnswer
	if err := s.request(ctx, "STREAM.MSG.GET."+s.name, body, &a); err != nil {
		return nil, err
	}
	if a.Message == nil {
		return nil, errors.New("answer without a message")
	}
	return a.Message, nil
}

func (r *rawMessage) header() (nats.Header, error) {
	if len(r.Headers) == 0 {
		return nil, nil
	}
	return nats.DecodeHeadersMsg(r.Headers)
}

// message validates r as a data message on the subject of its own database.
func (r *rawMessage) message() (*Message, error) {
	h, err := r.header()
	if err != nil {
		return nil, err
	}
	meta, err := wire.ParseMeta(h)
	if err != nil {
		return nil, err
	}
	if meta.DB.DataSubject() != r.Subject {
		return nil, &wire.HeaderError{Name: wire.HeaderMsgID, Value: meta.MsgID(), Reason: "does not belong on subject " + r.Subject}
	}
	return &Message{Seq: r.Seq, Time: r.Time, Meta: meta, Data: r.Data}, nil
}

func (r *rawMessage) claim() (*wire.Claim, error) {
	h, err := r.header()
	if err != nil {
		return nil, err
	}
	c, err := wire.ParseClaim(h)
	return &c, err
}
