package manage

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"p2pnode"
)

// Repairs measures what the agents of one node did. Every repair is counted by the
// node that reported it and by no other: sums over the fleet are right.
type Repairs struct {
	steps *prometheus.HistogramVec
	ended *prometheus.CounterVec
}

// repairBuckets go from what a crash costs (milliseconds) to what somebody is woken
// up for.
var repairBuckets = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// NewRepairs registers with reg; nil is fine.
func NewRepairs(reg prometheus.Registerer) *Repairs {
	r := &Repairs{
		steps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "p2pnode_repair_seconds", Help: "What each step of a repair took, by step (detect, dispatch, travel, act, verify, total) and kind (service, node, host).", Buckets: repairBuckets,
		}, []string{"step", "kind"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "p2pnode_reports_total", Help: "Reports of this node by phase, kind and why nobody acted.",
		}, []string{"phase", "kind", "held"}),
	}
	if reg != nil {
		reg.MustRegister(r.steps, r.ended)
	}
	return r
}

// Observe takes in a report of this node's own. The way there is measured when it
// was acted, the end when it was verified: no step is counted twice.
func (r *Repairs) Observe(rep p2pnode.Report) {
	kind := string(rep.Kind)
	r.ended.WithLabelValues(string(rep.Phase), kind, string(rep.Held)).Inc()
	step := func(name string, ms float64) {
		if ms > 0 {
			r.steps.WithLabelValues(name, kind).Observe(ms / 1000)
		}
	}
	switch t := rep.Timing; rep.Phase {
	case p2pnode.PhaseActed:
		step("detect", t.Detect)
		step("dispatch", t.Dispatch)
		step("travel", t.Travel)
		step("act", t.Act)
	case p2pnode.PhaseVerified:
		step("verify", t.Verify)
		step("total", t.Total)
	}
}

// hostMetrics reads this host's services when it is asked.
type hostMetrics struct {
	host               Host
	up, restarts, door *prometheus.Desc
}

// NewHostMetrics collects from this host's exec the states of its services and what
// its door refused.
func NewHostMetrics(h Host) prometheus.Collector {
	return hostMetrics{
		h, prometheus.NewDesc("p2pnode_service_up", "1 while the service is up.", []string{"service"}, nil),
		prometheus.NewDesc("p2pnode_service_restarts_total", "Starts of the service after its first one, as exec counts.", []string{"service"}, nil),
		prometheus.NewDesc("p2pnode_door_refused_total", "Connections and requests that the door refused, since it was started.", []string{"reason"}, nil),
	}
}

// Describe implements prometheus.Collector.
func (m hostMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- m.up
	out <- m.restarts
	out <- m.door
}

// Collect implements prometheus.Collector. An exec that does not answer has no
// services that anybody knows of.
func (m hostMetrics) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), dialTime)
	defer cancel()
	st, err := m.host.Status(ctx)
	if err != nil {
		return
	}
	for _, s := range st.Services {
		up := 0.0
		if s.State == p2pnode.StateUp {
			up = 1
		}
		out <- prometheus.MustNewConstMetric(m.up, prometheus.GaugeValue, up, s.Name)
		out <- prometheus.MustNewConstMetric(m.restarts, prometheus.CounterValue, float64(s.Restarts), s.Name)
	}
	for reason, n := range st.DoorRefused {
		out <- prometheus.MustNewConstMetric(m.door, prometheus.CounterValue, float64(n), reason)
	}
}

// metricsHandler answers GET /metrics; without a gatherer there is nothing there.
func (a *API) metricsHandler() http.Handler {
	if a.cfg.Gatherer == nil {
		return http.NotFoundHandler()
	}
	return promhttp.HandlerFor(a.cfg.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
}

// ServeMetrics answers /metrics on a loopback address until ctx ends. A browser that
// was led here by another name than this host's own gets nothing.
func (a *API) ServeMetrics(ctx context.Context, addr string) error {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return fmt.Errorf("cannot serve metrics: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", a.metricsHandler())
	server := &http.Server{Handler: loopbackOnly(mux), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// loopbackOnly refuses requests for another host: a name that somebody else resolves
// to 127.0.0.1 must not read what is meant for this host alone.
func loopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if !IsLoopback(host) {
			http.Error(w, "ask for localhost", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// IsLoopback reports whether host means this host and nobody else.
func IsLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
