package subscriber

import (
	"sync"
	"time"

	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the Prometheus series of all subscribers of a process, labelled
// by db and id. What is a state rather than an event is collected from Status.
type Metrics struct {
	files, bytes, errors *prometheus.CounterVec
	apply, delay         *prometheus.HistogramVec
	state                *stateCollector
}

// NewMetrics registers the series with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "ltx", Subsystem: "sub", Name: name, Help: help}, append([]string{"db"}, labels...))
	}
	histogram := func(name, help string, first float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "ltx", Subsystem: "sub", Name: name, Help: help,
			Buckets: prometheus.ExponentialBuckets(first, 2, 18)}, []string{"db"})
	}
	m := &Metrics{
		files:  counter("files_total", "LTX files applied."),
		bytes:  counter("bytes_total", "Bytes of LTX files applied."),
		errors: counter("errors_total", "Errors by kind.", "kind"),
		apply:  histogram("apply_seconds", "Time to apply one LTX file.", 10e-6),
		delay:  histogram("delay_seconds", "Time from the timestamp of an LTX file until it is visible; both clocks matter.", 500e-6),
		state:  newStateCollector(),
	}
	reg.MustRegister(m.files, m.bytes, m.errors, m.apply, m.delay, m.state)
	return m
}

func (m *Metrics) applied(db wire.DB, f *feed.File, took time.Duration) {
	if m == nil {
		return
	}
	name := string(db)
	m.files.WithLabelValues(name).Inc()
	m.bytes.WithLabelValues(name).Add(float64(f.Meta.Size))
	m.apply.WithLabelValues(name).Observe(took.Seconds())
	m.delay.WithLabelValues(name).Observe(max(0, time.Since(f.Meta.Timestamp).Seconds()))
}

func (m *Metrics) failed(db wire.DB, kind string) {
	if m != nil {
		m.errors.WithLabelValues(string(db), kind).Inc()
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
	c.mu.subscribers[s] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.mu.subscribers, s)
	}
}

// stateCollector turns the Status of each subscriber into gauges when asked.
type stateCollector struct {
	gauges []gauge
	mu     struct {
		sync.Mutex
		subscribers map[*Subscriber]struct{}
	}
}

type gauge struct {
	desc  *prometheus.Desc
	value func(Status) float64
}

func newStateCollector() *stateCollector {
	g := func(name, help string, value func(Status) float64) gauge {
		return gauge{prometheus.NewDesc(prometheus.BuildFQName("ltx", "sub", name), help, []string{"db", "id"}, nil), value}
	}
	c := &stateCollector{gauges: []gauge{
		g("txid", "Newest applied transaction.", func(s Status) float64 { return float64(s.TXID) }),
		g("head_txid", "Newest transaction of the stream when it was last read.", func(s Status) float64 { return float64(s.Head) }),
		g("head_age_seconds", "Time since the end of the stream was read.", func(s Status) float64 { return s.HeadAge }),
		g("lag_seconds", "Age of the newest applied transaction while something is pending, else 0.", func(s Status) float64 { return s.Lag }),
		g("lag_files", "LTX files that are pending.", func(s Status) float64 { return float64(s.LagFiles) }),
		g("wal_frames", "Frames in the replica's WAL.", func(s Status) float64 { return float64(s.Replica.WALFrames) }),
		g("wal_backfilled_frames", "Frames that are in the replica file too.", func(s Status) float64 { return float64(s.Replica.WALBackfilled) }),
		g("wal_pinned_by_readers", "READ slots held by readers.", func(s Status) float64 { return float64(len(s.Replica.PinnedBy)) }),
		g("wal_restarts", "Restarts of the replica's WAL since the start.", func(s Status) float64 { return float64(s.Replica.Restarts) }),
		g("up", "1 while nothing keeps the subscriber from applying.", func(s Status) float64 {
			if s.Running && s.Error == "" {
				return 1
			}
			return 0
		}),
	}}
	c.mu.subscribers = map[*Subscriber]struct{}{}
	return c
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
	for s := range c.mu.subscribers {
		st := s.Status()
		for _, g := range c.gauges {
			ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value(st), st.DB, st.ID)
		}
	}
}
