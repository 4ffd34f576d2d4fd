package agent

import (
	"maps"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts by reason, for Counters and for Prometheus alike.
type metrics struct {
	mu     sync.Mutex
	counts map[string]uint64

	events  *prometheus.CounterVec
	reports *prometheus.CounterVec
	agents  prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		counts:  map[string]uint64{},
		events:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "p2pnode_agent_events_total", Help: "Refusals, drops and turns of agents, by what happened."}, []string{"what"}),
		reports: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "p2pnode_agent_reports_total", Help: "Reports written by agents of this node, by phase."}, []string{"phase"}),
		agents:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "p2pnode_agent_here", Help: "Agents that are on this node now."}),
	}
	if reg == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.events, m.reports, m.agents} {
		if err := reg.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) count(what string) {
	m.events.WithLabelValues(what).Inc()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[what]++
}

func (m *metrics) snapshot() map[string]uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.counts)
}
