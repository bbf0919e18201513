package publisher

import (
	"time"

	"github.com/ltxstream/ltxstream/internal/capture"
	"github.com/superfly/ltx"
)

// counters begin with New.
type counters struct {
	Files    uint64 `json:"published_files"`
	Bytes    uint64 `json:"published_bytes"`
	Messages uint64 `json:"published_messages"`
	LostAcks uint64 `json:"lost_acks"`
	Foreign  uint64 `json:"foreign_messages"`
	Errors   uint64 `json:"errors"`
}

// Status is a picture of a publisher, made for JSON.
type Status struct {
	DB       string        `json:"db"`
	Path     string        `json:"path"`
	Stream   string        `json:"stream"`
	Running  bool          `json:"running"`
	Epoch    uint64        `json:"epoch"` // of the claim; 0: not claimed yet
	Writer   string        `json:"writer,omitempty"`
	Acked    ltx.TXID      `json:"txid"`          // newest acknowledged
	Checksum ltx.Checksum  `json:"checksum"`      // there
	Captured ltx.TXID      `json:"captured_txid"` // newest in the spool
	Lag      float64       `json:"lag_seconds"`   // age of the oldest file that waits; 0: none does
	LagFiles int           `json:"lag_files"`
	Error    string        `json:"error,omitempty"` // what keeps it from publishing now
	Capture  capture.Stats `json:"capture"`
	counters
}

// Status returns a picture of now.
func (p *Publisher) Status() Status {
	p.mu.Lock()
	s := Status{
		DB: string(p.cfg.DB), Path: p.cfg.Path, Stream: p.cfg.Stream,
		Running: p.mu.ended == nil, Epoch: p.mu.epoch,
		Acked: p.mu.acked.TXID, Checksum: p.mu.acked.PostApplyChecksum,
		Error: p.mu.err, counters: p.mu.status,
	}
	c := p.mu.capture
	p.mu.Unlock()
	if c == nil {
		return s
	}
	s.Writer, s.Captured, s.Capture = c.Writer(), c.Pos().TXID, c.Stats()
	if s.Error == "" {
		s.Error = s.Capture.Error
	}
	s.LagFiles = s.Capture.SpoolFiles
	if t, ok := c.Oldest(); ok {
		s.Lag = max(0, time.Since(t).Seconds())
	}
	return s
}

func (p *Publisher) bump(f func(*counters)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.mu.status)
}

// noteError logs a change of state: the first of a row of equal errors, and the
// recovery. nil: all is well.
func (p *Publisher) noteError(err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	p.mu.Lock()
	before := p.mu.err
	p.mu.err = text
	if err != nil {
		p.mu.status.Errors++
	}
	p.mu.Unlock()
	if err != nil {
		p.cfg.Metrics.failed(p.cfg.DB, err)
	}
	switch {
	case text == before:
	case err == nil:
		p.cfg.Logger.Info("publishing goes on")
	default:
		p.cfg.Logger.Warn("publishing waits", "err", err)
	}
}
