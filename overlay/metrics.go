package overlay

import "github.com/prometheus/client_golang/prometheus"

// metrics reads its numbers from the overlay when it is asked for them: reasons of
// refusal come up as they happen.
type metrics struct {
	o                        *Overlay
	refusals, links, members *prometheus.Desc
}

func newMetrics(o *Overlay) prometheus.Collector {
	return &metrics{
		o:        o,
		refusals: prometheus.NewDesc("p2pnode_overlay_refusals_total", "What peers sent and was refused or dropped, by reason.", []string{"reason"}, nil),
		links:    prometheus.NewDesc("p2pnode_overlay_links", "Live links of this node.", nil, nil),
		members:  prometheus.NewDesc("p2pnode_overlay_members", "Members of the cluster that have not left, this node too.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	out <- m.refusals
	out <- m.links
	out <- m.members
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	for reason, n := range m.o.Counters() {
		out <- prometheus.MustNewConstMetric(m.refusals, prometheus.CounterValue, float64(n), reason)
	}
	v := m.o.View()
	here := 0
	for _, p := range v.Peers {
		if !p.Left {
			here++
		}
	}
	out <- prometheus.MustNewConstMetric(m.links, prometheus.GaugeValue, float64(len(v.Links)))
	out <- prometheus.MustNewConstMetric(m.members, prometheus.GaugeValue, float64(here))
}
