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
)

// maxInFlight is how many messages one Put has unacknowledged: the server
// refuses all publishers of a stream when too much is (429).
const maxInFlight = 16

// publish stores one message and returns its sequence. Where nobody takes it
// the bucket is created, if that is wanted, else the error says what is missing.
func (s *Store) publish(ctx context.Context, subject string, header nats.Header, data []byte) (uint64, error) {
	m, err := s.call(ctx, subject, header, data)
	if errors.Is(err, nats.ErrNoResponders) {
		m, err = s.publishAgain(ctx, subject, header, data, err)
	}
	if err != nil {
		return 0, err
	}
	return s.acknowledged(m)
}

// publishAgain makes sure that there is a bucket. The interest of one that was
// just created takes a moment to arrive everywhere.
func (s *Store) publishAgain(ctx context.Context, subject string, header nats.Header, data []byte, first error) (*nats.Msg, error) {
	if _, err := s.info(ctx, "", 0); err == nil {
		return nil, first // there is one: its leader is not
	} else if !s.cfg.Create || !errors.Is(err, errNoBucket) {
		return nil, err
	}
	if err := s.create(ctx); err != nil {
		return nil, err
	}
	for pause := time.Millisecond; ; pause *= 2 {
		m, err := s.call(ctx, subject, header, data)
		if !errors.Is(err, nats.ErrNoResponders) || pause > s.cfg.Timeout {
			return m, err
		}
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

func (s *Store) create(ctx context.Context) error {
	subject := s.api + "STREAM.CREATE." + s.stream
	ctx, stop := s.guard(ctx, subject)
	defer stop()
	_, err := s.cfg.JS.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{
		Bucket: s.cfg.Bucket, Description: "archive of LTX files", Storage: jetstream.FileStorage, Replicas: s.cfg.Replicas,
	})
	if err == nil || errors.Is(err, jetstream.ErrBucketExists) {
		return nil
	}
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		err = s.refused(api)
	} else {
		err = s.explain(ctx, subject, err)
	}
	return fmt.Errorf("create bucket %s with %d replicas: %w", s.cfg.Bucket, s.cfg.Replicas, err)
}

// acknowledged reads the server's answer to a message.
func (s *Store) acknowledged(m *nats.Msg) (uint64, error) {
	var ack struct {
		Error  *jetstream.APIError `json:"error"`
		Stream string              `json:"stream"`
		Seq    uint64              `json:"seq"`
	}
	if err := json.Unmarshal(m.Data, &ack); err != nil {
		return 0, fmt.Errorf("acknowledgement: %w", err)
	}
	if ack.Error != nil {
		return 0, s.refused(ack.Error)
	}
	if ack.Stream != s.stream {
		return 0, fmt.Errorf("stream %q took a message for %s: remove the bucket's subjects from it", ack.Stream, s.stream)
	}
	s.seen.raise(ack.Seq)
	return ack.Seq, nil
}

// window publishes messages on one connection one after the other, maxInFlight
// of them without an acknowledgement. It belongs to one goroutine.
type window struct {
	s       *Store
	subject string   // of the last message: a denial names it
	acks    []uint64 // sequences, in the order of publishing; 0: not yet
	open    int      // messages in flight
	sub     *nats.Subscription
	err     error // the first one
}

// publish sends m once there is room.
func (w *window) publish(ctx context.Context, m *nats.Msg) error {
	if w.sub == nil {
		sub, err := w.s.nc.SubscribeSync(w.s.nc.NewInbox() + ".*")
		if err != nil {
			return w.s.explain(ctx, m.Subject, err)
		}
		w.sub = sub
	}
	for w.open >= maxInFlight && w.collect(ctx) == nil {
	}
	if w.err != nil {
		return w.err
	}
	w.subject = m.Subject
	m.Reply = w.inbox() + strconv.Itoa(len(w.acks))
	if err := w.s.nc.PublishMsg(m); err != nil {
		w.err = w.s.explain(ctx, m.Subject, err)
		return w.err
	}
	w.acks = append(w.acks, 0)
	w.open++
	return nil
}

func (w *window) inbox() string { return w.sub.Subject[:len(w.sub.Subject)-1] }

// collect waits for one acknowledgement; its error says that none came.
func (w *window) collect(ctx context.Context) error {
	m, err := w.s.next(ctx, w.sub, w.subject)
	if errors.Is(err, nats.ErrNoResponders) { // which answers one of them
		w.open--
		w.fail(err)
		return nil
	}
	if err != nil {
		w.fail(err)
		if errors.Is(err, errUnsure) {
			w.open = 0 // they were lost
		}
		return err
	}
	w.open--
	seq, err := w.s.acknowledged(m)
	if err != nil {
		w.fail(err)
		return nil
	}
	i, err := strconv.Atoi(m.Subject[len(w.inbox()):])
	if err != nil || i >= len(w.acks) {
		w.fail(fmt.Errorf("acknowledgement on %s: %w", m.Subject, err))
		return nil
	}
	w.acks[i] = seq
	return nil
}

func (w *window) fail(err error) {
	if w.err == nil {
		w.err = err
	}
}

// drain waits for all acknowledgements and returns the first error there was.
// Their sequences must grow. It may be called again to wait longer.
func (w *window) drain(ctx context.Context) error {
	for w.open > 0 && w.collect(ctx) == nil {
	}
	for i := 1; i < len(w.acks) && w.err == nil; i++ {
		if w.acks[i] <= w.acks[i-1] {
			w.fail(errors.New("messages were stored in another order than they were sent"))
		}
	}
	return w.err
}

func (w *window) close() {
	if w.sub != nil {
		_ = w.sub.Unsubscribe()
	}
}
