package archiver

import (
	"time"

	"github.com/superfly/ltx"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/wire"
)

// State is what a lane, or a destination, is doing.
type State string

// The states.
const (
	StateStarting  State = "starting"
	StateStandby   State = "standby"   // another process writes the destination
	StateReading   State = "reading"   // what the archive has
	StateSeeking   State = "seeking"   // where that ends in the stream
	StateArchiving State = "archiving" // following the stream
	StateWaiting   State = "waiting"   // for a full file from the publisher
	StateStopped   State = "stopped"
)

// Status of one lane: a database on its way to a destination.
type Status struct {
	DB          wire.DB `json:"db"`
	Destination string  `json:"destination"`
	URL         string  `json:"url"`
	State       State   `json:"state"`
	// Archived is the newest TXID that is durable in the archive, ArchivedTime
	// its timestamp.
	Archived     ltx.TXID  `json:"archived"`
	ArchivedTime time.Time `json:"archived_time"`
	Staged       ltx.TXID  `json:"staged"` // newest that waits for the next flush, 0: none does
	// Lag is how long the oldest file that is not archived has been in the
	// stream, in seconds; 0: nothing waits here.
	Lag   float64 `json:"lag_seconds"`
	Error string  `json:"error,omitempty"` // what is waited out
	Alarm string  `json:"alarm,omitempty"` // what is wrong with the archive itself
}

// status is a copy of the lane's.
func (l *lane) status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.mu.Status
	if !l.mu.oldest.IsZero() {
		s.Lag = max(time.Since(l.mu.oldest).Seconds(), 0)
	}
	if s.Error == "" && l.mu.feed != nil && l.mu.feed.Stats().Ahead {
		s.Error = "the stream ends before the archive: its publisher will send the rest again, or it is another history"
	}
	return s
}

func (l *lane) setState(s State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.State = s
}

func (l *lane) compactor() *compactor.Compactor {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.comp
}

// failed notes what the lane waits out; a new one is logged.
func (l *lane) failed(err error) {
	l.cfg.Metrics.failed(l, err)
	l.mu.Lock()
	again := l.mu.Error == err.Error()
	l.mu.Error = err.Error()
	l.mu.Unlock()
	if !again {
		l.log.Warn("archiving is held up, trying again", "err", err)
	}
}

func (l *lane) recovered() {
	l.mu.Lock()
	was := l.mu.Error
	l.mu.Error = ""
	l.mu.Unlock()
	if was != "" {
		l.log.Info("archiving goes on")
	}
}

// setKeepError notes what is wrong with the archive's order, nil: nothing.
func (l *lane) setKeepError(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.Alarm = ""
	if err != nil {
		l.mu.Alarm = err.Error()
	}
}

func (l *lane) staged(file *feed.File) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.Staged = file.Meta.Max
	if l.mu.oldest.IsZero() {
		l.mu.oldest = file.Stored
	}
}

// archived notes that all that was staged is durable in f.
func (l *lane) archived(f levels.File) {
	lags := make([]time.Duration, 0, len(l.stage.stored))
	for _, stored := range l.stage.stored {
		lags = append(lags, time.Since(stored))
	}
	l.cfg.Metrics.archived(l, lags)
	l.log.Debug("archived", "level", int(f.Level), "txid", f.Max, "bytes", f.Size, "files", len(lags))
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.Archived, l.mu.ArchivedTime, l.mu.Staged, l.mu.oldest = f.Max, f.Timestamp, 0, time.Time{}
}
