package natsobj

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/objstore"
)

// Headers and statuses of the JetStream protocol.
const (
	hdrStatus      = "Status"
	hdrDescription = "Description"
	hdrSequence    = "Nats-Sequence"
	hdrSubject     = "Nats-Subject"
	hdrStored      = "Nats-Time-Stamp"
	hdrLast        = "Nats-Last-Sequence"
	hdrUpTo        = "Nats-UpTo-Sequence"
)

// message is one message of the stream.
type message struct {
	Subject string    `json:"subject"`
	Seq     uint64    `json:"seq"`
	Hdrs    []byte    `json:"hdrs"`
	Data    []byte    `json:"data"`
	Time    time.Time `json:"time"`

	header nats.Header
}

// getRequest asks for messages, of the leader or directly.
type getRequest struct {
	Seq       uint64   `json:"seq,omitempty"` // first sequence that counts
	LastFor   string   `json:"last_by_subj,omitempty"`
	NextFor   string   `json:"next_by_subj,omitempty"`
	MultiLast []string `json:"multi_last,omitempty"`
	Batch     int      `json:"batch,omitempty"`
	MaxBytes  int      `json:"max_bytes,omitempty"`
}

// denialCheck is how often a request that has no answer yet looks for the
// server's denial.
const denialCheck = 20 * time.Millisecond

// guard bounds one wait for the answer to a request on subject: by
// Config.Timeout, and by a denial of the server.
func (s *Store) guard(ctx context.Context, subject string) (context.Context, func()) {
	ctx, stopTimeout := context.WithTimeoutCause(ctx, s.cfg.Timeout, errUnsure)
	ctx, cancel := context.WithCancelCause(ctx)
	before := s.nc.LastError()
	var look func()
	look = func() {
		if ctx.Err() != nil {
			return
		}
		if last := s.nc.LastError(); last != before {
			if err := denied(last, subject); err != nil {
				cancel(err)
				return
			}
		}
		time.AfterFunc(denialCheck, look)
	}
	first := time.AfterFunc(denialCheck, look)
	return ctx, func() { first.Stop(); cancel(nil); stopTimeout() }
}

// call sends one request and returns its answer.
func (s *Store) call(ctx context.Context, subject string, header nats.Header, data []byte) (*nats.Msg, error) {
	ctx, stop := s.guard(ctx, subject)
	defer stop()
	m, err := s.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: subject, Header: header, Data: data})
	if err != nil {
		return nil, s.explain(ctx, subject, err)
	}
	return m, nil
}

// answer is what all answers of the API have; they embed it.
type answer struct {
	Error *jetstream.APIError `json:"error"`
}

func (a *answer) failure() *jetstream.APIError { return a.Error }

// ask calls the API verb for our stream with req and decodes the answer.
func (s *Store) ask(ctx context.Context, verb string, req any, resp interface{ failure() *jetstream.APIError }) error {
	data, err := json.Marshal(req)
	if err != nil {
		return err
	}
	m, err := s.call(ctx, s.api+verb+"."+s.stream, nil, data)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(m.Data, resp); err != nil {
		return fmt.Errorf("answer to %s: %w", verb, err)
	}
	if e := resp.failure(); e != nil {
		return s.refused(e)
	}
	return nil
}

// leader gets one message from the stream's leader, which knows all that was
// acknowledged. errNoMessage: there is none.
func (s *Store) leader(ctx context.Context, req getRequest) (message, error) {
	var resp struct {
		answer
		Message message `json:"message"`
	}
	if err := s.ask(ctx, "STREAM.MSG.GET", req, &resp); err != nil {
		return message{}, err
	}
	m := resp.Message
	if len(m.Hdrs) > 0 {
		var err error
		if m.header, err = nats.DecodeHeadersMsg(m.Hdrs); err != nil {
			return message{}, fmt.Errorf("headers of message %d: %w", m.Seq, err)
		}
	}
	s.seen.raise(m.Seq)
	return m, nil
}

// direct gets one message from any replica; it may be behind the leader.
func (s *Store) direct(ctx context.Context, req getRequest) (message, error) {
	data, err := json.Marshal(req)
	if err != nil {
		return message{}, err
	}
	m, err := s.call(ctx, s.directSubject(), nil, data)
	if err != nil {
		return message{}, err
	}
	return s.directMessage(m)
}

func (s *Store) directSubject() string { return s.api + "DIRECT.GET." + s.stream }

func (s *Store) directMessage(m *nats.Msg) (message, error) {
	switch status := m.Header.Get(hdrStatus); status {
	case "":
	case "404":
		return message{}, errNoMessage
	default:
		return message{}, objstore.Transient(fmt.Errorf("direct get from %s: %s %s", s.stream, status, m.Header.Get(hdrDescription)))
	}
	seq, err := strconv.ParseUint(m.Header.Get(hdrSequence), 10, 64)
	if err != nil {
		return message{}, fmt.Errorf("direct get from %s: sequence of an answer: %w", s.stream, err)
	}
	stored, _ := time.Parse(time.RFC3339Nano, m.Header.Get(hdrStored)) // zero: it does not tell
	return message{Subject: m.Header.Get(hdrSubject), Seq: seq, Data: m.Data, Time: stored, header: m.Header}, nil
}

// batch is the answer to a request for several messages.
type batch struct {
	msgs []message
	upTo uint64 // last sequence that the replica had; only with MultiLast
}

// batch gets several messages from one replica, which may be behind the leader.
// errNoMessage: it has none.
func (s *Store) batch(ctx context.Context, req getRequest) (b batch, err error) {
	sub, err := s.nc.SubscribeSync(s.nc.NewInbox())
	if err != nil {
		return batch{}, s.explain(ctx, s.directSubject(), err)
	}
	defer func() { _ = sub.Unsubscribe() }()
	_ = sub.SetPendingLimits(-1, -1) // the request bounds it
	data, err := json.Marshal(req)
	if err != nil {
		return batch{}, err
	}
	if err := s.nc.PublishRequest(s.directSubject(), sub.Subject, data); err != nil {
		return batch{}, s.explain(ctx, s.directSubject(), err)
	}
	for {
		m, err := s.next(ctx, sub, s.directSubject())
		if err != nil {
			return batch{}, err
		}
		if m.Header.Get(hdrStatus) == "204" {
			return b, b.end(m.Header)
		}
		one, err := s.directMessage(m)
		if err != nil {
			return batch{}, err
		}
		if err := b.follows(m.Header); err != nil {
			return batch{}, err
		}
		b.msgs = append(b.msgs, one)
	}
}

// next waits for a message on sub, which answers a request on subject.
func (s *Store) next(ctx context.Context, sub *nats.Subscription, subject string) (*nats.Msg, error) {
	m, err := sub.NextMsg(0) // without the cost of a guard, when it is there
	if err == nil {
		return m, nil
	}
	if errors.Is(err, nats.ErrNoResponders) {
		return nil, s.explain(ctx, subject, err)
	}
	ctx, stop := s.guard(ctx, subject)
	defer stop()
	if m, err = sub.NextMsgWithContext(ctx); err != nil {
		return nil, s.explain(ctx, subject, err)
	}
	return m, nil
}

// follows returns an error unless the message with header h, or the end, comes
// right after the last one: when the connection is lost what comes before that
// may be lost, and what comes after it arrive.
func (b *batch) follows(h nats.Header) error {
	var last uint64
	if len(b.msgs) > 0 {
		last = b.msgs[len(b.msgs)-1].Seq
	}
	if h.Get(hdrLast) != strconv.FormatUint(last, 10) {
		return objstore.Transient(fmt.Errorf("an answer in %d messages lost some", len(b.msgs)))
	}
	return nil
}

func (b *batch) end(h nats.Header) (err error) {
	if upTo := h.Get(hdrUpTo); upTo != "" {
		if b.upTo, err = strconv.ParseUint(upTo, 10, 64); err != nil {
			return fmt.Errorf("end of an answer: %w", err)
		}
	}
	return b.follows(h)
}

// info is what we need of the stream.
type info struct {
	answer
	Total   int       `json:"total"`
	Time    time.Time `json:"ts"` // the server's clock
	Created time.Time `json:"created"`
	Config  struct {
		Replicas int `json:"num_replicas"`
	} `json:"config"`
	State struct {
		LastSeq  uint64            `json:"last_seq"`
		Subjects map[string]uint64 `json:"subjects"`
	} `json:"state"`
}

// info asks the leader; filter selects the subjects it counts, offset how many
// of them to leave out ("": none).
func (s *Store) info(ctx context.Context, filter string, offset int) (i info, err error) {
	err = s.ask(ctx, "STREAM.INFO", struct {
		Filter string `json:"subjects_filter,omitempty"`
		Offset int    `json:"offset,omitempty"`
	}{filter, offset}, &i)
	s.seen.raise(i.State.LastSeq)
	return i, err
}

// infoOverlap is how many subjects two answers have in common: so many may be
// removed between them without one being missed.
const infoOverlap = 5000

// subjects yields the subjects that match filter to each, as the leader knows
// them, some twice, and returns its answer to the first request. The server
// puts up to 100,000 into one.
func (s *Store) subjects(ctx context.Context, filter string, each func(subject string)) (first info, err error) {
	for offset := 0; ; {
		i, err := s.info(ctx, filter, offset)
		if err != nil {
			return info{}, err
		}
		if offset == 0 {
			first = i
		}
		for subject := range i.State.Subjects {
			each(subject)
		}
		if offset += len(i.State.Subjects); len(i.State.Subjects) <= infoOverlap || offset >= i.Total {
			return first, nil
		}
		offset -= infoOverlap
	}
}

// purge removes the messages on subject up to a sequence; 0: all.
func (s *Store) purge(ctx context.Context, subject string, upTo uint64) error {
	var below uint64
	if upTo > 0 {
		below = upTo + 1
	}
	return s.ask(ctx, "STREAM.PURGE", struct {
		Filter string `json:"filter"`
		Below  uint64 `json:"seq,omitempty"`
	}{subject, below}, &answer{})
}
