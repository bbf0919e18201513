package publisher

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ltxstream/ltxstream/internal/atomicfile"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/nats-io/nats.go"
	"github.com/superfly/ltx"
)

// fenced tells whether somebody else has claimed the database since we did. A
// claim of ours whose acknowledgement was lost is recognised first.
func (r *runner) fenced(head stream.Head) error {
	for _, c := range r.attempts {
		if same(head.Claim, c) {
			r.claimed(c)
			break
		}
	}
	c := inForce(head)
	if r.claim == nil || c == nil || c.Epoch < r.claim.Epoch || same(c, r.claim) || c.Epoch == r.claim.Epoch && head.Claim == nil {
		return nil
	}
	return &FencedError{DB: r.cfg.DB, Claim: *c, Spool: r.spoolDir()}
}

// inForce returns the claim in force. One that the stream dropped for its age is
// what the data published under it says.
func inForce(head stream.Head) *wire.Claim {
	if head.Claim != nil || head.Data == nil {
		return head.Claim
	}
	m := head.Data.Meta
	return &wire.Claim{Epoch: m.Epoch, Writer: m.Writer, Pos: m.PrePos(), Time: head.Data.Time}
}

// same compares what tells two claims apart. Two runs on copies of one state
// directory have the same writer; hardly ever do they claim in the same
// millisecond under the same process id.
func same(a, b *wire.Claim) bool {
	return a != nil && b != nil && a.Epoch == b.Epoch && a.Writer == b.Writer && a.Host == b.Host && a.PID == b.PID && a.Time.Equal(b.Time)
}

func (r *runner) claimed(c *wire.Claim) {
	r.claim, r.attempts = c, nil
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.epoch = c.Epoch
}

// hold makes sure that the claim is ours. One that we hold already is renewed
// when files are published again: under the same claim, the server would take
// them for duplicates of those that it has lost or kept half.
func (r *runner) hold(ctx context.Context, head stream.Head, at ltx.Pos, back bool) error {
	unfinished := head.Data != nil && head.Data.Meta.Part < head.Data.Meta.Parts
	continued := unfinished && r.continues(head)
	if !continued {
		r.partial = partial{}
	}
	if same(head.Claim, r.claim) && !back && !r.anew && unfinished == continued {
		return nil
	}
	c, err := r.nextClaim(head, at)
	if err != nil {
		return err
	}
	if err := r.noteEpoch(c.Epoch); err != nil { // a full disk, for example: it only matters later
		r.cfg.Logger.Warn("the epoch of a claim is not noted", "err", err)
	}
	r.attempts = append(r.attempts[max(0, len(r.attempts)-maxAttempts):], &c)
	r.cfg.crash("claim")
	ack, err := r.store(ctx, &nats.Msg{Subject: r.cfg.DB.EpochSubject(), Header: c.Header()})
	if err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	r.cfg.crash("claimed")
	r.seq, r.anew = ack, false
	r.partial = partial{}
	r.claimed(&c)
	r.cfg.Logger.Info("database claimed", "epoch", c.Epoch, "txid", c.Pos.TXID.String())
	return nil
}

// notedEpoch is the highest epoch that was ever claimed from this state directory;
// 0: not known. The stream itself may have dropped all claims for their age, or
// older ones, sent again by somebody, may hide them.
func (r *runner) notedEpoch() uint64 {
	b, err := os.ReadFile(r.epochFile())
	if err != nil {
		return 0
	}
	epoch, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil || epoch > maxNoted {
		return 0
	}
	return epoch
}

// maxNoted keeps room for those that follow: a higher one is damage.
const maxNoted = 1 << 62

func (r *runner) noteEpoch(epoch uint64) error {
	if err := atomicfile.Write(r.epochFile(), fmt.Appendln(nil, epoch)); err != nil {
		return fmt.Errorf("note epoch %d: %w", epoch, err)
	}
	return nil
}

func (r *runner) epochFile() string { return filepath.Join(r.stateDir(), "epoch") }

// maxAttempts are remembered while their fate is open: a server that is slow may
// store an older one after the head was read.
const maxAttempts = 100

// nextClaim is our claim as readers will see it.
func (r *runner) nextClaim(head stream.Head, at ltx.Pos) (wire.Claim, error) {
	epoch := r.notedEpoch()
	for _, c := range append([]*wire.Claim{head.Claim, r.claim}, r.attempts...) {
		if c != nil {
			epoch = max(epoch, c.Epoch)
		}
	}
	if head.Data != nil {
		epoch = max(epoch, head.Data.Meta.Epoch)
	}
	c := wire.Claim{Epoch: epoch + 1, Writer: r.c.Writer(), Host: r.host, PID: os.Getpid(), Pos: at, Time: time.Now()}
	c, err := wire.ParseClaim(c.Header())
	if err != nil {
		return c, fmt.Errorf("make claim at %s: %w", at, err)
	}
	return c, nil
}
