package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/micro"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/wire"
)

// statusChunk keeps one answer well under the smallest usual max payload.
const statusChunk = 256 << 10

func (s *Service) addStatus(name, subject, id string, statuses []func() any) error {
	return s.micro.AddEndpoint(name, micro.HandlerFunc(func(req micro.Request) {
		if err := answerStatus(req, id, statuses); err != nil {
			s.cfg.Logger.Warn("control answer is lost", "subject", subject, "err", err)
		}
	}), micro.WithEndpointSubject(subject))
}

// answerStatus sends a JSON array, in several messages when it is long.
func answerStatus(req micro.Request, id string, statuses []func() any) error {
	chunk := []json.RawMessage{}
	size := 0
	for _, status := range statuses {
		buf, err := json.Marshal(status())
		if err != nil {
			return errors.Join(err, respondError(req, id, KindError, err.Error()))
		}
		if size+len(buf) > statusChunk && len(chunk) > 0 {
			if err := req.RespondJSON(chunk, headers(id, stateMore)); err != nil {
				return err
			}
			chunk, size = chunk[:0], 0
		}
		chunk = append(chunk, buf)
		size += len(buf)
	}
	return req.RespondJSON(chunk, headers(id, ""))
}

func headers(id, state string) micro.RespondOpt {
	h := micro.Headers{headerID: {id}}
	if state != "" {
		h[headerState] = []string{state}
	}
	return micro.WithHeaders(h)
}

func respondError(req micro.Request, id string, kind Kind, text string) error {
	return req.Error(string(kind), text, nil, headers(id, ""))
}

// worker does for one answerer what a request asks.
type worker struct {
	db  wire.DB
	id  string
	run func(context.Context, ltx.TXID) (ltx.Pos, error)
}

// noTXID and needTXID say which header a request must have.
const (
	noTXID   = false
	needTXID = true
)

func (s *Service) addWork(ctx context.Context, name, subject string, needsTXID bool, workers []worker) error {
	return s.micro.AddEndpoint(name, micro.HandlerFunc(func(req micro.Request) {
		for _, w := range workers {
			if err := s.accept(ctx, req, needsTXID, w); err != nil {
				s.cfg.Logger.Warn("control answer is lost", "subject", subject, "err", err)
			}
		}
	}), micro.WithEndpointSubject(subject))
}

// accept starts the work and says so, or says why not.
func (s *Service) accept(ctx context.Context, req micro.Request, needsTXID bool, w worker) error {
	ask, err := parseAsk(req.Headers(), needsTXID)
	if err != nil {
		return respondError(req, w.id, KindRequest, err.Error())
	}
	accepted := make(chan struct{}) // "more" goes out before the answer
	kind := s.spawn(func() {
		<-accepted
		s.work(ctx, req, ask, w)
	})
	if kind != "" {
		return respondError(req, w.id, kind, "not taken: "+string(kind))
	}
	defer close(accepted)
	return req.Respond(nil, headers(w.id, stateMore))
}

func (s *Service) work(ctx context.Context, req micro.Request, ask ask, w worker) {
	ctx, cancel := context.WithTimeout(ctx, ask.timeout)
	defer cancel()
	pos, err := w.run(ctx, ask.txid)
	if err != nil {
		err = respondError(req, w.id, failure(ctx, err), err.Error())
	} else {
		err = req.RespondJSON(Reached{DB: w.db, ID: w.id, TXID: pos.TXID, Checksum: pos.PostApplyChecksum}, headers(w.id, ""))
	}
	if err != nil {
		s.cfg.Logger.Warn("control answer is lost", "db", w.db, "err", err)
	}
}

// failure sorts an error of the work that ran under ctx.
func failure(ctx context.Context, err error) Kind {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return KindTimeout
	case ctx.Err() != nil:
		return KindStopped
	}
	if kind := kindOf(err); kind != "" {
		return kind
	}
	return KindError
}

// ask is what the headers of a sync or wait request say.
type ask struct {
	timeout time.Duration
	txid    ltx.TXID
}

func parseAsk(h micro.Headers, needsTXID bool) (ask, error) {
	a := ask{timeout: defaultTimeout}
	if v := h.Get(headerTimeout); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil || d <= 0 {
			return ask{}, fmt.Errorf("header %s %q: want a positive duration", headerTimeout, v)
		}
		a.timeout = min(d, maxTimeout)
	}
	if needsTXID {
		txid, err := ltx.ParseTXID(h.Get(headerTXID))
		if err != nil || txid == 0 {
			return ask{}, fmt.Errorf("header %s %q: want 16 hex digits, not zero", headerTXID, h.Get(headerTXID))
		}
		a.txid = txid
	}
	return a, nil
}
