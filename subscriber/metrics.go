package subscriber

import (
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/replica"
)

// Metrics are the Prometheus series of all subscribers of a process, labelled
// by db and replica (the path: several replicas of one database may run). What
// is a state rather than an event is collected from Status.
type Metrics struct {
	files  *prometheus.CounterVec
	bytes  *prometheus.CounterVec
	apply  *prometheus.HistogramVec
	errors *prometheus.CounterVec
	state  *stateCollector
}

// NewMetrics registers the series with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	labels := []string{"db", "replica"}
	counter := func(name, help string, more ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "ltx", Subsystem: "sub", Name: name, Help: help}, append(labels, more...))
	}
	m := &Metrics{
		files: counter("files_total", "LTX files applied."),
		bytes: counter("bytes_total", "Bytes of LTX files applied."),
		apply: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "ltx", Subsystem: "sub", Name: "apply_seconds", Help: "Time to apply an LTX file.",
			Buckets: prometheus.ExponentialBuckets(25e-6, 2, 18),
		}, labels),
		errors: counter("errors_total", "Errors by kind.", "kind"),
		state:  newStateCollector(labels),
	}
	reg.MustRegister(m.files, m.bytes, m.apply, m.errors, m.state)
	return m
}

func (m *Metrics) applied(s *Subscriber, a applied) {
	if m == nil {
		return
	}
	db, path := string(s.cfg.DB), s.cfg.Path
	m.files.WithLabelValues(db, path).Inc()
	m.bytes.WithLabelValues(db, path).Add(float64(a.size))
	m.apply.WithLabelValues(db, path).Observe(a.took.Seconds())
}

func (m *Metrics) failed(s *Subscriber, err error) {
	if m != nil {
		m.errors.WithLabelValues(string(s.cfg.DB), s.cfg.Path, kindOf(err)).Inc()
	}
}

// kindOf is the label of an error.
func kindOf(err error) string {
	if _, ok := errors.AsType[*feed.DamageError](err); ok {
		return "skipped message"
	}
	if _, ok := errors.AsType[*feed.GapError](err); ok {
		return "gap"
	}
	if _, ok := errors.AsType[*feed.ForkError](err); ok || errors.Is(err, replica.ErrDiverged) {
		return "fork"
	}
	switch {
	case errors.Is(err, feed.ErrNoBase):
		return "no base"
	case errors.Is(err, replica.ErrDamaged), errors.Is(err, replica.ErrMoved), errors.Is(err, replica.ErrPageSize):
		return "replica"
	}
	return stream.Classify(err).String()
}

// stateCollector turns the Status of each subscriber into gauges when it is
// asked, so that nothing is stored twice.
type stateCollector struct {
	gauges []gauge
	mu     struct {
		sync.Mutex
		running map[*Subscriber]struct{}
	}
}

type gauge struct {
	desc  *prometheus.Desc
	value func(Status) float64
}

func newStateCollector(labels []string) *stateCollector {
	g := func(name, help string, value func(Status) float64) gauge {
		return gauge{prometheus.NewDesc(prometheus.BuildFQName("ltx", "sub", name), help, labels, nil), value}
	}
	c := &stateCollector{gauges: []gauge{
		g("txid", "Newest applied transaction.", func(s Status) float64 { return float64(s.TXID) }),
		g("head_txid", "Newest transaction known in the stream.", func(s Status) float64 { return float64(s.HeadTXID) }),
		g("lag_seconds", "Age of the newest applied transaction while something is pending.", func(s Status) float64 { return s.Lag }),
		g("lag_files", "LTX files known in the stream and not applied.", func(s Status) float64 { return float64(s.LagFiles) }),
		g("wal_frames", "Frames in the replica's WAL.", func(s Status) float64 { return float64(s.WALFrames) }),
		g("wal_bytes", "Size of the replica's WAL file.", func(s Status) float64 { return float64(s.Replica.WALBytes) }),
		g("wal_pinned", "Readers that keep part of the replica's WAL in use.", func(s Status) float64 { return float64(len(s.Replica.PinnedBy)) }),
		g("wal_restarts", "Restarts of the replica's WAL since it was opened.", func(s Status) float64 { return float64(s.Replica.Restarts) }),
		g("up", "1 while the stream is followed.", func(s Status) float64 { return truth(s.State == StateLive && s.Connected) }),
	}}
	c.mu.running = map[*Subscriber]struct{}{}
	return c
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Describe implements prometheus.Collector.
func (c *stateCollector) Describe(ch chan<- *prometheus.Desc) {
	for _, g := range c.gauges {
		ch <- g.desc
	}
}

// Collect implements prometheus.Collector.
func (c *stateCollector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.mu.running {
		st := s.Status()
		for _, g := range c.gauges {
			ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value(st), st.DB, st.Path)
		}
	}
}

// watch adds s for as long as it runs.
func (m *Metrics) watch(s *Subscriber) (stop func()) {
	if m == nil {
		return func() {}
	}
	c := m.state
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.running[s] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.mu.running, s)
	}
}
