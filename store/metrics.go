package store

import (
	"maps"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are kept whether or not a registerer wants them.
type metrics struct {
	reports, bytes, degraded                  prometheus.Gauge
	damaged, failed, replaced, unsavedDropped prometheus.Counter
	pulled, sent                              prometheus.Counter // bytes
	byCause                                   *prometheus.CounterVec

	mu     sync.Mutex
	counts map[string]uint64
}

func newMetrics(r prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: "p2pnode_store_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "p2pnode_store_" + name, Help: help})
	}
	m := &metrics{
		reports: gauge("reports", "Reports here."), bytes: gauge("bytes", "Their bytes."),
		degraded:       gauge("degraded", "1 while reports are not written to the disk."),
		damaged:        counter("damaged_reports_total", "Reports that did not verify when they were read."),
		failed:         counter("failed_writes_total", "Commits that failed."),
		replaced:       counter("replaced_files_total", "Files that were given up and begun anew."),
		unsavedDropped: counter("unsaved_dropped_total", "Reports that found no room in memory while the disk did not work."),
		pulled:         counter("pulled_bytes_total", "Answers of peers to our questions."),
		sent:           counter("sent_bytes_total", "Answers to peers' questions."),
		byCause:        prometheus.NewCounterVec(prometheus.CounterOpts{Name: "p2pnode_store_refused_total", Help: "What peers sent and was not taken."}, []string{"reason"}),
		counts:         map[string]uint64{},
	}
	if r != nil {
		r.MustRegister(m.reports, m.bytes, m.degraded, m.damaged, m.failed, m.replaced, m.unsavedDropped, m.pulled, m.sent, m.byCause)
	}
	return m
}

func (m *metrics) count(sh *shelf) {
	m.reports.Set(float64(len(sh.list)))
	m.bytes.Set(float64(sh.bytes))
}

func (m *metrics) refuse(reason string) {
	m.byCause.WithLabelValues(reason).Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[reason]++
}

func (m *metrics) refused() map[string]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.counts)
}
