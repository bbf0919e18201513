package archiver

import (
	"context"
	"errors"
	"io/fs"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ltxstream/ltxstream/compactor"
	"github.com/ltxstream/ltxstream/internal/feed"
	"github.com/ltxstream/ltxstream/internal/ltxfile"
	"github.com/ltxstream/ltxstream/internal/stream"
	"github.com/ltxstream/ltxstream/objstore"
	"github.com/ltxstream/ltxstream/objstore/levels"
	"github.com/ltxstream/ltxstream/wire"
)

// Metrics of all lanes of a process, by database and destination. nil is valid
// and does nothing.
type Metrics struct {
	txid    *prometheus.Desc
	lagging *prometheus.Desc
	up      *prometheus.Desc
	alarm   *prometheus.Desc

	lag     *prometheus.HistogramVec
	files   *prometheus.CounterVec
	bytes   *prometheus.CounterVec
	seconds *prometheus.HistogramVec
	deleted *prometheus.CounterVec
	errors  *prometheus.CounterVec
	trims   *prometheus.CounterVec

	mu struct {
		sync.Mutex
		lanes map[*lane]bool
	}
}

// NewMetrics registers the metrics with reg.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	labels := []string{"db", "dest"}
	level := append(labels, "level")
	name := func(s string) string { return prometheus.BuildFQName("ltx", "archive", s) }
	m := &Metrics{
		txid:    prometheus.NewDesc(name("txid"), "Newest transaction that is durable in the archive.", labels, nil),
		lagging: prometheus.NewDesc(name("lag_seconds"), "How long the oldest file that is not archived has been in the stream.", labels, nil),
		up:      prometheus.NewDesc(name("up"), "1 while the lane follows the stream without an error.", labels, nil),
		alarm:   prometheus.NewDesc(name("alarm"), "1 while something is wrong with the archive itself.", labels, nil),
		lag: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name("file_lag_seconds"), Help: "From stored in the stream to durable in the archive, of each level-0 file.",
			Buckets: []float64{.1, .25, .5, 1, 2.5, 5, 7.5, 10, 11, 12.5, 15, 20, 30, 60, 300, 3600},
		}, labels),
		files: prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("files_total"), Help: "Files written, read back."}, level),
		bytes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("bytes_total"), Help: "Bytes written, read back."}, level),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name("store_seconds"), Help: "Time to merge, write and read back one file.",
			Buckets: []float64{.01, .05, .1, .5, 1, 5, 10, 60, 600},
		}, level),
		deleted: prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("deleted_total"), Help: "Files that the policy let go of."}, level),
		errors:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("errors_total"), Help: "Errors, by kind."}, append(labels, "kind")),
		trims:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("trimmed_messages_total"), Help: "Messages removed from the stream."}, labels[:1]),
	}
	m.mu.lanes = map[*lane]bool{}
	reg.MustRegister(m, m.lag, m.files, m.bytes, m.seconds, m.deleted, m.errors, m.trims)
	return m
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.txid
	ch <- m.lagging
	ch <- m.up
	ch <- m.alarm
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for l := range m.mu.lanes {
		s := l.status()
		gauge := func(d *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, string(s.DB), s.Destination)
		}
		gauge(m.txid, float64(s.Archived))
		gauge(m.lagging, s.Lag)
		gauge(m.up, number(s.State == StateArchiving && s.Error == ""))
		gauge(m.alarm, number(s.Alarm != ""))
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// watch shows a lane until the returned function is called.
func (m *Metrics) watch(l *lane) func() {
	if m == nil {
		return func() {}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.lanes[l] = true
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.mu.lanes, l)
	}
}

func (m *Metrics) archived(l *lane, lags []time.Duration) {
	if m == nil {
		return
	}
	h := m.lag.WithLabelValues(string(l.db), l.dest.Name)
	for _, lag := range lags {
		h.Observe(lag.Seconds())
	}
}

func (m *Metrics) failed(l *lane, err error) {
	if m != nil {
		m.errors.WithLabelValues(string(l.db), l.dest.Name, kindOf(err)).Inc()
	}
}

func (m *Metrics) trimmed(db wire.DB, n uint64) {
	if m != nil {
		m.trims.WithLabelValues(string(db)).Add(float64(n))
	}
}

// kindOf names the kind of an error for a label.
func kindOf(err error) string {
	_, damaged := errors.AsType[*levels.DamageError](err)
	_, gap := errors.AsType[*feed.GapError](err)
	_, fork := errors.AsType[*feed.ForkError](err)
	_, message := errors.AsType[*feed.DamageError](err)
	switch {
	case damaged, errors.Is(err, ltxfile.ErrDamaged):
		return "damage"
	case message:
		return "message"
	case gap, fork, errors.Is(err, compactor.ErrChain), errors.Is(err, compactor.ErrOtherHistory):
		return "chain"
	case errors.Is(err, feed.ErrNoBase):
		return "no_base"
	case errors.Is(err, fs.ErrPermission), errors.Is(err, stream.ErrPermission):
		return "permission"
	case errors.Is(err, objstore.ErrTransient):
		return "storage"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	}
	return "other"
}

// observer is the Metrics of one lane as its Compactor sees them.
type observer struct {
	m *Metrics
	l *lane
}

// of returns nil where there are no metrics.
func (m *Metrics) of(l *lane) compactor.Observer {
	if m == nil {
		return nil
	}
	return observer{m, l}
}

func (o observer) labels(level levels.Level) []string {
	return []string{string(o.l.db), o.l.dest.Name, strconv.Itoa(int(level))}
}

func (o observer) Stored(level levels.Level, f levels.File, took time.Duration) {
	o.m.files.WithLabelValues(o.labels(level)...).Inc()
	o.m.bytes.WithLabelValues(o.labels(level)...).Add(float64(f.Size))
	o.m.seconds.WithLabelValues(o.labels(level)...).Observe(took.Seconds())
}

func (o observer) Deleted(files []levels.File) {
	for _, f := range files {
		o.m.deleted.WithLabelValues(o.labels(f.Level)...).Inc()
	}
}

func (o observer) Damaged(err error) { o.m.failed(o.l, err) }
