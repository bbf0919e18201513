package publisher

import (
	"time"

	"github.com/ltxstream/ltxstream/internal/capture"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/wire"
	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the Prometheus series of all publishers of a process, labelled by
// db. What is a state rather than an event is collected from Status.
type Metrics struct {
	txid         *prometheus.GaugeVec
	files        *prometheus.CounterVec
	bytes        *prometheus.CounterVec
	messages     *prometheus.CounterVec
	publish      *prometheus.HistogramVec
	group        *prometheus.HistogramVec
	transactions *prometheus.CounterVec
	restarts     *prometheus.CounterVec
	yields       *prometheus.CounterVec
	comparisons  *prometheus.CounterVec
	hold         *prometheus.HistogramVec
	errors       *prometheus.CounterVec
	state        *stateCollector
}

// NewMetrics registers the series with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	db := []string{"db"}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: "ltx", Subsystem: "pub", Name: name, Help: help}, append(db, labels...))
	}
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: "ltx", Subsystem: "pub", Name: name, Help: help, Buckets: buckets}, db)
	}
	seconds := prometheus.ExponentialBuckets(50e-6, 2, 16)
	m := &Metrics{
		txid:         prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: "ltx", Subsystem: "pub", Name: "txid", Help: "Newest acknowledged transaction."}, db),
		files:        counter("files_total", "LTX files published."),
		bytes:        counter("bytes_total", "Bytes of LTX files published."),
		messages:     counter("messages_total", "Messages published."),
		publish:      histogram("publish_seconds", "Time from the first part of a file to its last acknowledgement.", seconds),
		group:        histogram("group_transactions", "SQLite transactions per LTX file.", prometheus.ExponentialBuckets(1, 2, 14)),
		transactions: counter("transactions_total", "SQLite transactions captured."),
		restarts:     counter("wal_restarts_total", "Attempts to restart the WAL that took its write lock."),
		yields:       counter("yields_total", "Times the WAL was let go for somebody's checkpoint."),
		comparisons:  counter("comparisons_total", "Comparisons of the whole database."),
		hold:         histogram("write_lock_seconds", "Time the write lock of the database was held.", seconds),
		errors:       counter("errors_total", "Errors by kind.", "kind"),
		state:        newStateCollector(),
	}
	reg.MustRegister(m.txid, m.files, m.bytes, m.messages, m.publish, m.group, m.transactions, m.restarts, m.yields, m.comparisons, m.hold, m.errors, m.state)
	return m
}

// observer returns the capture's hooks; a nil Metrics has none.
func (m *Metrics) observer(db wire.DB) capture.Observer {
	if m == nil {
		return capture.Observer{}
	}
	name := string(db)
	return capture.Observer{
		Captured: func(_ capture.File, g capture.Group) {
			m.group.WithLabelValues(name).Observe(float64(g.Commits))
			m.transactions.WithLabelValues(name).Add(float64(g.Commits))
		},
		Restarted: func(held time.Duration) {
			m.restarts.WithLabelValues(name).Inc()
			m.hold.WithLabelValues(name).Observe(held.Seconds())
		},
		Yielded: func() { m.yields.WithLabelValues(name).Inc() },
		Scanned: func(time.Duration, int) { m.comparisons.WithLabelValues(name).Inc() },
		Failed:  func(error) { m.errors.WithLabelValues(name, "capture").Inc() },
	}
}

func (m *Metrics) published(db wire.DB, f capture.File, parts int, took time.Duration) {
	if m == nil {
		return
	}
	name := string(db)
	m.txid.WithLabelValues(name).Set(float64(f.TXID()))
	m.files.WithLabelValues(name).Inc()
	m.bytes.WithLabelValues(name).Add(float64(f.Size))
	m.messages.WithLabelValues(name).Add(float64(parts))
	m.publish.WithLabelValues(name).Observe(took.Seconds())
}

func (m *Metrics) failed(db wire.DB, err error) {
	if m != nil {
		m.errors.WithLabelValues(string(db), stream.Classify(err).String()).Inc()
	}
}
