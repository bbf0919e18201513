package publisher

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// stateCollector turns the Status of each publisher into gauges when it is
// asked, so that nothing is stored twice.
type stateCollector struct {
	gauges []gauge
	mu     struct {
		sync.Mutex
		publishers map[*Publisher]struct{}
	}
}

type gauge struct {
	desc  *prometheus.Desc
	value func(Status) float64
}

func newStateCollector() *stateCollector {
	g := func(name, help string, value func(Status) float64) gauge {
		return gauge{prometheus.NewDesc(prometheus.BuildFQName("ltx", "pub", name), help, []string{"db"}, nil), value}
	}
	c := &stateCollector{gauges: []gauge{
		g("captured_txid", "Newest captured transaction.", func(s Status) float64 { return float64(s.Captured) }),
		g("lag_seconds", "Age of the oldest LTX file that waits for its acknowledgement.", func(s Status) float64 { return s.Lag }),
		g("lag_files", "LTX files that wait for their acknowledgement.", func(s Status) float64 { return float64(s.LagFiles) }),
		g("spool_bytes", "Bytes of the LTX files that wait.", func(s Status) float64 { return float64(s.Capture.SpoolBytes) }),
		g("wal_frames", "Committed frames in the WAL.", func(s Status) float64 { return float64(s.Capture.WALFrames) }),
		g("wal_backfilled_frames", "Frames that are in the database file too.", func(s Status) float64 { return float64(s.Capture.Backfilled) }),
		g("wal_captured_frames", "Frames that were captured.", func(s Status) float64 { return float64(s.Capture.Captured) }),
		g("wal_bytes", "Bytes of the committed frames.", func(s Status) float64 { return float64(s.Capture.WALBytes) }),
		g("wal_pinned_by_others", "READ slots held by others while the WAL is over its limit.", func(s Status) float64 { return float64(len(s.Capture.Pinners)) }),
		g("up", "1 while nothing keeps the publisher from publishing.", func(s Status) float64 { return truth(s.Running && s.Error == "") }),
	}}
	c.mu.publishers = map[*Publisher]struct{}{}
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
	for p := range c.mu.publishers {
		s := p.Status()
		for _, g := range c.gauges {
			ch <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, g.value(s), s.DB)
		}
	}
}

// watch adds p for as long as it runs.
func (m *Metrics) watch(p *Publisher) (stop func()) {
	if m == nil {
		return func() {}
	}
	c := m.state
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.publishers[p] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.mu.publishers, p)
	}
}
