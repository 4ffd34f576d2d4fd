package gossip

import (
	"github.com/prometheus/client_golang/prometheus"

	"p2pnode"
)

var (
	membersDesc = prometheus.NewDesc("p2pnode_members", "Members by the verdict that this node has on them.", []string{"verdict"}, nil)
	refusedDesc = prometheus.NewDesc("p2pnode_gossip_events_total", "Refusals, drops and alarms of gossip by reason.", []string{"reason"}, nil)
	swimDesc    = prometheus.NewDesc("p2pnode_gossip_nodes", "Nodes that the failure detector holds for alive, this one among them.", nil, nil)
	brakeDesc   = prometheus.NewDesc("p2pnode_brake", "1 while the brake is on.", nil, nil)
)

// collector reads the newest beliefs and counters.
type collector struct{ g *Gossip }

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	ch <- membersDesc
	ch <- refusedDesc
	ch <- swimDesc
	ch <- brakeDesc
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	b := c.g.Beliefs()
	counts := map[p2pnode.Verdict]int{}
	for _, p := range b.Peers {
		counts[p.Verdict]++
	}
	for _, v := range p2pnode.Verdicts() {
		ch <- prometheus.MustNewConstMetric(membersDesc, prometheus.GaugeValue, float64(counts[v]), string(v))
	}
	for reason, n := range c.g.Counters() {
		ch <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(n), reason)
	}
	ch <- prometheus.MustNewConstMetric(swimDesc, prometheus.GaugeValue, float64(c.g.swimNodes()))
	on := 0.0
	if b.Brake.On {
		on = 1
	}
	ch <- prometheus.MustNewConstMetric(brakeDesc, prometheus.GaugeValue, on)
}
