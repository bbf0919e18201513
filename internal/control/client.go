package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/wire"
)

const (
	// DefaultStall is how long after an answer another one may follow. It must
	// exceed the difference of round trips to the processes that answer.
	DefaultStall = 150 * time.Millisecond
	// grace lets an answer "timed out" arrive.
	grace = time.Second
)

// Client asks. Its methods are safe for concurrent use.
type Client struct {
	NC    *nats.Conn
	Stall time.Duration // 0 means DefaultStall
}

// Status collects the status of one database, or of all for db "", from
// everybody on that side who answers within timeout. Errors: [*NobodyError].
func (c Client) Status(ctx context.Context, side Side, db wire.DB, timeout time.Duration) ([]json.RawMessage, error) {
	answers, err := c.gather(ctx, question{side: side, db: db, verb: "status", timeout: timeout}, nil)
	if err != nil {
		return nil, err
	}
	var all []json.RawMessage
	for _, a := range answers {
		var part []json.RawMessage
		if a.err == nil {
			a.err = json.Unmarshal(a.data, &part)
		}
		if a.err != nil {
			return nil, fmt.Errorf("read status of %s: %w", a.id, a.err)
		}
		all = append(all, part...)
	}
	return all, nil
}

// Sync returns once everything committed to db before the call is
// acknowledged. Errors: [*NobodyError], [*RemoteError], [*SilenceError].
func (c Client) Sync(ctx context.Context, db wire.DB, timeout time.Duration) (Reached, error) {
	return c.publishers(ctx, question{side: Publishers, db: db, verb: "sync", timeout: timeout})
}

// Full asks the publisher of db for a file of all pages, and returns once it is
// acknowledged. Errors: those of Sync.
func (c Client) Full(ctx context.Context, db wire.DB, timeout time.Duration) (Reached, error) {
	return c.publishers(ctx, question{side: Publishers, db: db, verb: "full", timeout: timeout})
}

// publishers asks them all, and is content with one that could.
func (c Client) publishers(ctx context.Context, q question) (Reached, error) {
	answers, err := c.gather(ctx, q, func(a answer) bool { return a.last && a.err == nil })
	if err != nil {
		return Reached{}, err
	}
	reached, err := positions(q, answers)
	if len(reached) > 0 {
		return reached[len(reached)-1], nil // a fenced publisher's error does not matter then
	}
	return Reached{}, err
}

// Wait returns once txid is applied on every replica of db that answers, or on
// replica id alone. Positions that were reached are returned beside the errors
// of the others: [*NobodyError], [*RemoteError], [*SilenceError].
func (c Client) Wait(ctx context.Context, db wire.DB, id string, txid ltx.TXID, timeout time.Duration) ([]Reached, error) {
	q := question{side: Subscribers, db: db, id: id, verb: "wait", txid: txid, timeout: timeout}
	var enough func(answer) bool
	if id != "" {
		enough = func(a answer) bool { return a.last }
	}
	answers, err := c.gather(ctx, q, enough)
	if err != nil {
		return nil, err
	}
	return positions(q, answers)
}

func positions(q question, answers []answer) ([]Reached, error) {
	var reached []Reached
	var errs []error
	done := map[string]bool{}
	for _, a := range answers {
		done[a.id] = done[a.id] || a.last
		switch {
		case a.err != nil:
			errs = append(errs, a.err)
		case a.last:
			var r Reached
			if err := json.Unmarshal(a.data, &r); err != nil {
				errs = append(errs, fmt.Errorf("read answer of %s: %w", a.id, err))
				continue
			}
			reached = append(reached, r)
		}
	}
	for id, ok := range done {
		if !ok {
			errs = append(errs, &SilenceError{DB: q.db, ID: id, After: q.timeout})
		}
	}
	return reached, errors.Join(errs...)
}

type question struct {
	side    Side
	db      wire.DB
	id      string
	verb    string
	txid    ltx.TXID
	timeout time.Duration
}

func (q question) msg(reply string) *nats.Msg {
	m := nats.NewMsg(subject(q.side, q.db, q.id, q.verb))
	m.Reply = reply
	m.Header.Set(headerTimeout, q.timeout.String())
	if q.txid != 0 {
		m.Header.Set(headerTXID, q.txid.String())
	}
	return m
}

// answer is one message of one answerer.
type answer struct {
	id   string
	last bool // nothing more of this id follows
	data []byte
	err  error
}

func parseAnswer(q question, m *nats.Msg) answer {
	a := answer{id: m.Header.Get(headerID), last: m.Header.Get(headerState) != stateMore, data: m.Data}
	if kind := m.Header.Get(micro.ErrorCodeHeader); kind != "" {
		a.err = &RemoteError{DB: q.db, ID: a.id, Kind: Kind(kind), Text: m.Header.Get(micro.ErrorHeader)}
	}
	return a
}

// gather collects answers until everybody who answered has finished and nobody
// new did for the stall, until enough says so, or until the time is up.
func (c Client) gather(ctx context.Context, q question, enough func(answer) bool) ([]answer, error) {
	ctx, cancel := context.WithTimeout(ctx, q.timeout+grace)
	defer cancel()
	sub, err := c.NC.SubscribeSync(c.NC.NewRespInbox())
	if err != nil {
		return nil, fmt.Errorf("ask %s: %w", q.side.Command(), err)
	}
	defer func() { _ = sub.Unsubscribe() }() // an error means that the connection is gone
	if err := c.NC.PublishMsg(q.msg(sub.Subject)); err != nil {
		return nil, fmt.Errorf("ask %s: %w", q.side.Command(), err)
	}
	g := gathering{q: q, open: map[string]bool{}}
	for {
		m, err := c.next(ctx, sub, &g)
		switch {
		case errors.Is(err, errStalled):
			return g.answers, nil
		case errors.Is(err, nats.ErrNoResponders):
			return nil, &NobodyError{Side: q.side, DB: q.db, ID: q.id}
		case errors.Is(err, context.DeadlineExceeded) && len(g.answers) > 0:
			return g.answers, nil
		case errors.Is(err, context.DeadlineExceeded):
			return nil, fmt.Errorf("ask %s: no answer within %v: %w", q.side.Command(), q.timeout, err)
		case err != nil:
			return nil, fmt.Errorf("ask %s: %w", q.side.Command(), err)
		}
		a := g.add(m)
		if enough != nil && enough(a) {
			return g.answers, nil
		}
	}
}

var errStalled = errors.New("nobody else answers")

// next returns the next message; errStalled when none is expected.
func (c Client) next(ctx context.Context, sub *nats.Subscription, g *gathering) (*nats.Msg, error) {
	if len(g.answers) == 0 || g.pending() {
		return sub.NextMsgWithContext(ctx)
	}
	stall := c.Stall
	if stall == 0 {
		stall = DefaultStall
	}
	short, cancel := context.WithTimeout(ctx, stall)
	defer cancel()
	m, err := sub.NextMsgWithContext(short)
	if err != nil && short.Err() != nil && ctx.Err() == nil {
		return nil, errStalled
	}
	return m, err
}

// gathering is what came so far.
type gathering struct {
	q       question
	answers []answer
	open    map[string]bool // ids that promised more
}

func (g *gathering) add(m *nats.Msg) answer {
	a := parseAnswer(g.q, m)
	g.answers = append(g.answers, a)
	if a.last {
		delete(g.open, a.id)
	} else {
		g.open[a.id] = true
	}
	return a
}

func (g *gathering) pending() bool { return len(g.open) > 0 }
