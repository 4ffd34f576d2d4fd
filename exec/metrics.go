package exec

import (
	"p2pnode"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics counts what exec does; with a nil Registerer it counts for nobody.
type metrics struct {
	starts   *prometheus.CounterVec
	failures *prometheus.CounterVec
	refusals *prometheus.CounterVec
	reads    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		starts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_exec_starts_total",
			Help: "Processes started, by service and by who asked.",
		}, []string{"service", "by"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_exec_failures_total",
			Help: "Failures seen, by service and class.",
		}, []string{"service", "class"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_exec_refusals_total",
			Help: "Requests and messages refused, by reason.",
		}, []string{"reason"}),
		reads: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_exec_log_reads_total",
			Help: "Logs that managers asked for from other hosts, by outcome: ok, refused, failed.",
		}, []string{"outcome"}),
	}
	if reg != nil {
		reg.MustRegister(m.starts, m.failures, m.refusals, m.reads)
	}
	return m
}

func (m *metrics) started(service string, by p2pnode.ByKind) {
	m.starts.WithLabelValues(service, string(by)).Inc()
}

func (m *metrics) failed(service string, class p2pnode.Class) {
	m.failures.WithLabelValues(service, string(class)).Inc()
}

func (m *metrics) refused(reason p2pnode.Refusal) { m.refusals.WithLabelValues(string(reason)).Inc() }

func (m *metrics) refusedNotify() { m.refusals.WithLabelValues("notify-stranger").Inc() }

func (m *metrics) refusedClient() { m.refusals.WithLabelValues("too-many-clients").Inc() }

func (m *metrics) read(outcome string) { m.reads.WithLabelValues(outcome).Inc() }
