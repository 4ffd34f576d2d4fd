package manage

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/exec"
)

// world is a fleet in memory behind an API.
type world struct {
	nodes    []p2pnode.NodeDoc
	reports  []p2pnode.Report
	more     int // incidents that are not listed
	trouble  string
	standing *Standing
	host     p2pnode.ExecStatus
	hostErr  error
	joinErr  error
	brake    p2pnode.BrakeState
	orders   []p2pnode.OrderDoc
	promoted []peer.ID
	revoked  []peer.ID
	demoted  []peer.ID
	acts     []string
	approved []peer.ID
	pending  []p2pnode.PendingNode
	forgot   []peer.ID
	managing bool
}

func (w *world) Nodes() []p2pnode.NodeDoc      { return w.nodes }
func (w *world) Why(peer.ID) p2pnode.WhyDoc    { return p2pnode.WhyDoc{Would: []string{"a hello"}} }
func (w *world) Brake() p2pnode.BrakeState     { return w.brake }
func (w *world) All() iter.Seq[p2pnode.Report] { return slices.Values(w.reports) }
func (w *world) Trouble() string               { return w.trouble }
func (w *world) Changed() <-chan struct{}      { return nil }
func (w *world) Standing() *Standing           { return w.standing }
func (w *world) JoinError() error              { return w.joinErr }
func (w *world) Refusals() map[string]uint64   { return map[string]uint64{"stranger": 3} }
func (w *world) Demote(id peer.ID) ([]string, error) {
	w.demoted = append(w.demoted, id)
	return []string{"cedar"}, nil
}

func (w *world) Act(_ context.Context, host peer.ID, verb, target string, o exec.VerbOptions) (exec.VerbResult, error) {
	w.acts = append(w.acts, verb+" "+target+" on "+host.String())
	if target == "db" {
		return exec.VerbResult{}, &p2pnode.Error{Code: "not-trusted", Text: "first sight", Exit: p2pnode.ExitNotPermitted}
	}
	return exec.VerbResult{OK: !o.NoWait}, nil
}

func (w *world) Logs(_ context.Context, host peer.ID, target string, q exec.LogRead, f func(exec.LogLine) error) error {
	w.acts = append(w.acts, fmt.Sprintf("logs %s %d %s on %s", target, q.Lines, q.Grep, host))
	for _, text := range []string{"one", "two"} {
		if err := f(exec.LogLine{Service: "web", Text: text}); err != nil || target == "db" {
			return &p2pnode.Error{Code: "not-trusted", Text: "no longer", Exit: p2pnode.ExitNotPermitted}
		}
	}
	return nil
}

func (w *world) Pending() []p2pnode.PendingNode { return w.pending }

func (w *world) Approve(id peer.ID) error {
	w.approved = append(w.approved, id)
	return nil
}

func (w *world) Open(d time.Duration) (time.Time, error) {
	if d == 0 {
		return time.Time{}, nil
	}
	return time.Now().Add(d), nil
}

func (w *world) Trust(cluster string) error {
	if cluster != w.standing.Cluster {
		return &p2pnode.Error{Code: "foreign-cluster", Exit: p2pnode.ExitNotPermitted}
	}
	w.standing.Trusted = true
	return nil
}

func (w *world) Revoke(id peer.ID) ([]string, error) {
	w.revoked = append(w.revoked, id)
	return []string{"c"}, nil
}

func (w *world) Forget(id peer.ID) error {
	w.forgot = append(w.forgot, id)
	return nil
}
func (w *world) Tokens() []p2pnode.TokenDoc        { return []p2pnode.TokenDoc{{ID: "t"}} }
func (w *world) RemoveToken(string) error          { return nil }
func (w *world) Leave(context.Context) error       { return nil }
func (w *world) Join(string) error                 { return nil }
func (w *world) Manage(on bool) error              { w.managing = on; return nil }
func (w *world) Agents() p2pnode.AgentsDoc         { return p2pnode.AgentsDoc{Orders: w.orders} }
func (w *world) Recall(string) error               { w.orders = nil; return nil }
func (w *world) Path(a, b peer.ID) p2pnode.PathDoc { return p2pnode.PathDoc{} }
func (w *world) Promote(_ context.Context, id peer.ID) error {
	w.promoted = append(w.promoted, id)
	return nil
}

func (w *world) Recent(int) (iter.Seq[p2pnode.Report], int) { return w.All(), w.more }

func (w *world) Incident(id string) iter.Seq[p2pnode.Report] {
	return slices.Values(slices.DeleteFunc(slices.Clone(w.reports), func(r p2pnode.Report) bool { return r.Incident != id }))
}

func (w *world) Counts(t time.Time) (open, since int) {
	for _, i := range Fold(w.reports, func(string) string { return "" }) {
		if i.State == p2pnode.IncidentOpen || i.State == p2pnode.IncidentActing {
			open++
		}
		if i.DetectedAt.After(t) {
			since++
		}
	}
	return open, since
}

func (w *world) Status(context.Context) (p2pnode.ExecStatus, error) { return w.host, w.hostErr }
func (w *world) Ping(context.Context, peer.ID) (p2pnode.PingDoc, error) {
	return p2pnode.PingDoc{}, errors.New("no route")
}

func (w *world) Launch(slo time.Duration, confidence float64, _ map[string]string) (p2pnode.OrderDoc, error) {
	o := p2pnode.OrderDoc{ID: "o-1", SLO: slo.String(), Confidence: confidence, Agents: 2}
	w.orders = append(w.orders, o)
	return o, nil
}

func (w *world) CreateToken(role p2pnode.Role, _ time.Duration, uses int) (p2pnode.TokenDoc, error) {
	return p2pnode.TokenDoc{Token: "secret", Role: role, Uses: uses}, nil
}

func (w *world) api(joins bool) *API {
	self, _ := peer.Decode(w.nodes[0].ID)
	return New(Config{Self: self, Name: w.nodes[0].Name, Data: "/d", Listen: []string{"h:1"}, Joins: joins, Fleet: w, Routes: w, Agents: w, Reports: w, Cluster: w, Remote: w, Host: w, Events: NewEvents()})
}

func member(name string, seed byte, role p2pnode.Role, v p2pnode.Verdict) p2pnode.NodeDoc {
	key := ed25519.NewKeyFromSeed(append(make([]byte, 31), seed))
	return p2pnode.NodeDoc{Name: name, ID: p2pnode.PeerID(key.Public().(ed25519.PublicKey)).String(), Role: role, Verdict: v}
}

func healthy() *world {
	return &world{
		nodes: []p2pnode.NodeDoc{
			member("ash", 1, p2pnode.RoleManager, p2pnode.Alive), member("birch", 2, p2pnode.RoleManager, p2pnode.Alive), member("cedar", 3, p2pnode.RoleWorker, p2pnode.Alive),
		},
		standing: &Standing{Cluster: "c", Trusted: true, Role: p2pnode.RoleManager, Managing: true, Since: time.Now().Add(-time.Hour), Until: time.Now().Add(365 * 24 * time.Hour)},
		host:     p2pnode.ExecStatus{PID: 7, Services: []p2pnode.ServiceStatus{{Name: "web", State: p2pnode.StateUp}, {Name: "x", State: p2pnode.StateStopped}}},
	}
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*world)
		joins  bool
		ok     bool
		code   string
	}{
		{"all well", func(*world) {}, true, true, ""},
		{"a service is down", func(w *world) { w.host.Services[0].State = p2pnode.StateCrashLooping }, true, false, ""},
		{"an unknown state is not up", func(w *world) { w.host.Services[0].State = "new" }, true, false, ""},
		{"exec is away", func(w *world) { w.hostErr = errors.New("x") }, true, false, "exec-away"},
		{"a member is dead", func(w *world) { w.nodes[2].Verdict = p2pnode.ProcessDead }, true, false, ""},
		{"a member left", func(w *world) { w.nodes[2].Verdict = p2pnode.Left }, true, true, ""},
		{"one manager", func(w *world) { w.nodes[1].Role = p2pnode.RoleWorker }, true, true, "few-managers"},
		{"the certificate ends", func(w *world) { w.standing.Until = time.Now().Add(29 * 24 * time.Hour) }, true, true, "certificate-ends"},
		{"a worker has the root's key", func(w *world) { w.standing.Role, w.standing.RootKey = p2pnode.RoleWorker, true }, true, true, "root-key"},
		{"the clock is wrong", func(w *world) { w.standing.ClockBehind = time.Hour }, true, true, "clock"},
		{"the door is open", func(w *world) { w.standing.OpenUntil = time.Now().Add(time.Minute) }, true, true, "open"},
		{"alone", func(w *world) { w.nodes = w.nodes[:1] }, false, true, "alone"},
		{"alone with --join", func(w *world) { w.nodes = w.nodes[:1] }, true, false, "alone"},
		{"alone since now", func(w *world) { w.nodes, w.standing.Since = w.nodes[:1], time.Now() }, true, true, ""},
		{"not joined", func(w *world) { w.standing = nil }, true, false, "not-joined"},
		{"refused", func(w *world) { w.standing, w.joinErr = nil, &p2pnode.Error{Text: "token expired", Fix: "x"} }, false, false, "not-joined"},
		{"another cluster", func(w *world) { w.joinErr = &p2pnode.Error{Text: "that is another cluster", Fix: "x"} }, true, false, "other-cluster"},
		{"unreached", func(w *world) { w.standing, w.joinErr = nil, errors.New("refused") }, true, false, "not-joined"},
		{"brake", func(w *world) { w.brake = p2pnode.BrakeState{On: true, Unreachable: 2, Of: 3} }, true, true, "brake"},
		{"open incident", func(w *world) { w.reports = []p2pnode.Report{report(p2pnode.PhaseObserved, 1, 1)} }, true, false, ""},
		{"degraded", func(w *world) { w.host.Degraded = []string{"disk: full"} }, true, true, "degraded"},
	} {
		w := healthy()
		c.change(w)
		doc, err := w.api(c.joins).Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var codes []string
		for _, warn := range doc.Warnings {
			codes = append(codes, warn.Code)
			if warn.Text == "" || warn.Severity == "" {
				t.Errorf("%s: %+v", c.name, warn)
			}
		}
		if doc.OK != c.ok || strings.Join(codes, ",") != c.code {
			t.Errorf("%s: ok %v, warnings %v, want %v, %q", c.name, doc.OK, codes, c.ok, c.code)
		}
	}
}

func TestResolve(t *testing.T) {
	w := healthy()
	twin := member("ash", 9, p2pnode.RoleWorker, p2pnode.Alive)
	nodes := append(w.nodes, twin)
	tail := func(n p2pnode.NodeDoc) string { return n.ID[len(n.ID)-4:] }
	for _, c := range []struct{ text, want, code string }{
		{"birch", nodes[1].ID, ""},
		{nodes[2].ID, nodes[2].ID, ""},
		{"ash", "", "ambiguous-node"},
		{"ash~" + tail(twin), twin.ID, ""},
		{"ash~" + tail(nodes[0]), nodes[0].ID, ""},
		{"nobody", "", "unknown-node"},
		{"", "", "unknown-node"},
		{"ash~", "", "unknown-node"},
	} {
		n, err := resolve(nodes, c.text)
		e, _ := errors.AsType[*p2pnode.Error](err)
		if c.code == "" && (err != nil || n.ID != c.want) || c.code != "" && (e == nil || e.Code != c.code || e.Fix == "") {
			t.Errorf("resolve(%q) = %s, %v; want %s %s", c.text, n.ID, err, c.want, c.code)
		}
	}
}

// serve puts w on a socket and returns a client of it.
func serve(t *testing.T, w *world) (*API, *Client) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 25)) // longer than a socket path may be
	if err := os.MkdirAll(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	a := w.api(true)
	a.cfg.Data, a.audit = dir, exec.NewAuditLog(dir)
	return serveAPI(t, a)
}

// serveAPI puts a on the socket of its folder.
func serveAPI(t *testing.T, a *API) (*API, *Client) {
	t.Helper()
	dir := a.cfg.Data
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Serve(ctx, dir) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(5 * time.Second); ; {
		c, err := Dial(t.Context(), dir)
		if err == nil {
			t.Cleanup(func() { c.Close() })
			return a, c
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestVerbsOverTheSocket(t *testing.T) {
	w := healthy()
	w.reports = []p2pnode.Report{acted(1, 10), verified(2, 20)}
	a, c := serve(t, w)
	ctx := t.Context()

	st, err := c.Status(ctx)
	if err != nil || !st.OK || st.Schema != "p2pnode/status/v1" || st.Members["total"] != 3 || st.Cluster.Managers != 2 || st.Refusals["stranger"] != 3 {
		t.Errorf("status %+v %v", st, err)
	}
	if d, err := c.Nodes(ctx); err != nil || len(d.Nodes) != 3 {
		t.Errorf("nodes %+v %v", d, err)
	}
	if d, err := c.Why(ctx, "cedar"); err != nil || d.Name != "cedar" || d.Verdict != p2pnode.Alive || d.Evidence == nil {
		t.Errorf("why %+v %v", d, err)
	}
	o, err := c.Launch(ctx, 15*time.Second, 0.99, nil)
	if err != nil || o.SLO != "15s" {
		t.Errorf("launch %+v %v", o, err)
	}
	if d, err := c.Agents(ctx); err != nil || len(d.Orders) != 1 || d.Agents == nil {
		t.Errorf("agents %+v %v", d, err)
	}
	if err := c.Recall(ctx, "o-7"); code(err) != "unknown-order" {
		t.Errorf("recall of nothing: %v", err)
	}
	if err := c.Recall(ctx, "o-1"); err != nil || len(w.orders) != 0 {
		t.Errorf("recall: %v", err)
	}
	if d, err := c.Incident(ctx, "i-1"); err != nil || len(d.Incidents) != 1 || d.Incidents[0].State != p2pnode.IncidentRecovered {
		t.Errorf("incident %+v %v", d, err)
	}
	if _, err := c.Incident(ctx, "i-9"); code(err) != "unknown-incident" {
		t.Errorf("incident: %v", err)
	}
	if d, err := c.CreateToken(ctx, p2pnode.RoleWorker, time.Hour, 2); err != nil || d.Uses != 2 || d.Token == "" {
		t.Errorf("token %+v %v", d, err)
	}
	if err := c.Promote(ctx, "cedar"); err != nil || len(w.promoted) != 1 {
		t.Errorf("promote: %v %v", err, w.promoted)
	}
	if d, err := c.Tokens(ctx); err != nil || len(d.Tokens) != 1 || d.Schema != "p2pnode/tokens/v1" {
		t.Errorf("tokens %+v %v", d, err)
	}
	if err := c.RemoveToken(ctx, "t"); err != nil {
		t.Errorf("token rm: %v", err)
	}
	if d, err := c.Revoke(ctx, "cedar"); err != nil || len(w.revoked) != 1 || d.ID != w.revoked[0].String() || len(d.Kept) != 1 {
		t.Errorf("revoke: %+v %v %v", d, err, w.revoked)
	}
	if d, err := c.Demote(ctx, "birch", false); err != nil || len(w.demoted) != 1 || d.ID != w.demoted[0].String() || d.Was != p2pnode.RoleManager || len(d.Kept) != 1 {
		t.Errorf("demote: %+v %v %v", d, err, w.demoted)
	}
	if d, err := c.Demote(ctx, "cedar", false); err != nil || len(w.demoted) != 1 || d.Was != p2pnode.RoleWorker {
		t.Errorf("demote a worker: %+v %v %v", d, err, w.demoted)
	}
	w.nodes[1].Verdict = p2pnode.Unreachable
	if _, err := c.Demote(ctx, "ash", false); code(err) != "last-manager" || len(w.demoted) != 1 {
		t.Errorf("demote the last one: %v", err)
	}
	if _, err := c.Demote(ctx, "ash", true); err != nil || len(w.demoted) != 2 {
		t.Errorf("by force: %v", err)
	}
	w.nodes[1].Verdict = p2pnode.Alive
	w.standing.DemotedBy, w.standing.Role = "birch", p2pnode.RoleWorker
	if _, err := c.Demote(ctx, "birch", false); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted || !strings.Contains(err.Error(), "birch demoted it") {
		t.Errorf("by one that was demoted: %v", err)
	}
	w.standing.DemotedBy, w.standing.Role = "", p2pnode.RoleManager
	if res, err := c.Act(ctx, "stop", "cedar", "web", exec.VerbOptions{}); err != nil || !res.OK || len(w.acts) != 1 || w.acts[0] != "stop web on "+w.nodes[2].ID {
		t.Errorf("act: %+v %v %v", res, err, w.acts)
	}
	if res, err := c.Act(ctx, "stop", "cedar", "web", exec.VerbOptions{NoWait: true}); err != nil || res.OK {
		t.Errorf("options are lost: %+v %v", res, err)
	}
	var heard []string
	hear := func(l exec.LogLine) error { heard = append(heard, l.Service+" "+l.Text); return nil }
	if err := c.Logs(ctx, "cedar", "web", exec.LogRead{Lines: 7, Grep: "o"}, hear); err != nil || !slices.Equal(heard, []string{"web one", "web two"}) || w.acts[len(w.acts)-1] != "logs web 7 o on "+w.nodes[2].ID {
		t.Errorf("logs: %v, %v, %v", heard, err, w.acts)
	}
	if err := c.Logs(ctx, "cedar", "db", exec.LogRead{Lines: 7}, hear); code(err) != "not-trusted" || len(heard) != 3 || p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
		t.Errorf("logs that end early: %v, %v", heard, err)
	}
	if err := c.Logs(ctx, "nobody", "web", exec.LogRead{}, hear); code(err) != "unknown-node" {
		t.Errorf("logs of nobody: %v", err)
	}
	w.acts = w.acts[:1]
	if _, err := c.Act(ctx, "stop", "cedar", "db", exec.VerbOptions{}); code(err) != "not-trusted" || !strings.Contains(err.Error(), "cedar refuses to stop") {
		t.Errorf("a refusal: %v", err)
	}
	if _, err := c.Revoke(ctx, "nobody"); code(err) != "unknown-node" {
		t.Errorf("revoke of nobody: %v", err)
	}
	if _, err := c.Forget(ctx, "cedar"); code(err) != "node-alive" || len(w.forgot) > 0 {
		t.Errorf("forget of one that lives: %v", err)
	}
	if _, err := c.Forget(ctx, "nobody"); code(err) != "unknown-node" {
		t.Errorf("forget of nobody: %v", err)
	}
	for v, want := range map[p2pnode.Verdict]string{
		p2pnode.Doubtful: "node-not-gone", p2pnode.ProcessDead: "node-not-gone", p2pnode.Hung: "node-not-gone",
		p2pnode.Unreachable: "", p2pnode.ExecDead: "", p2pnode.Left: "",
	} {
		w.forgot, w.nodes[2].Verdict, w.nodes[2].Since = nil, v, time.Now().Add(-time.Second)
		d, err := c.Forget(ctx, "cedar")
		if code(err) != want || (want == "") != (len(w.forgot) == 1) || want == "" && (d.ID != w.nodes[2].ID || d.Verdict != v || d.Schema != "p2pnode/forget/v1") {
			t.Errorf("forget of one that is %s: %+v %v %v", v, d, err, w.forgot)
		}
	}
	w.forgot, w.nodes[2].Verdict, w.nodes[2].Since = nil, p2pnode.Doubtful, time.Now().Add(-2*forgetDoubt)
	if _, err := c.Forget(ctx, "cedar"); err != nil || len(w.forgot) != 1 {
		t.Errorf("forget of one long in doubt: %v", err)
	}
	w.nodes[2].Verdict = p2pnode.Alive
	if _, err := c.Path(ctx, "ash", "cedar"); code(err) != "no-route" {
		t.Errorf("path: %v", err)
	}
	if _, err := c.Ping(ctx, "cedar"); code(err) != "no-answer" {
		t.Errorf("ping: %v", err)
	}
	testEvents(t, a, c)
}

func testEvents(t *testing.T, a *API, c *Client) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	a.cfg.Events.Add(t0, "ash", "verdict", "x")
	stop := errors.New("enough")
	var seen []uint64
	err := c.Events(ctx, 0, true, func(e p2pnode.EventDoc) error {
		if seen = append(seen, e.Seq); len(seen) == 2 {
			return stop
		}
		a.cfg.Events.Add(t0, "ash", "verdict", "y")
		return nil
	})
	if !errors.Is(err, stop) || len(seen) != 2 || seen[1] != 2 {
		t.Errorf("events %v, %v", seen, err)
	}
}

func code(err error) string {
	if e, ok := errors.AsType[*p2pnode.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestPrivileges(t *testing.T) {
	for _, c := range []struct {
		name     string
		standing *Standing
		code     string
	}{
		{"stranger", nil, "not-a-member"},
		{"worker", &Standing{Role: p2pnode.RoleWorker}, "not-permitted"},
		{"switched off", &Standing{Role: p2pnode.RoleManager}, "not-permitted"},
		{"manager", &Standing{Role: p2pnode.RoleManager, Managing: true}, ""},
	} {
		w := healthy()
		w.standing = c.standing
		a, ctx := w.api(true), t.Context()
		_, launch := a.Launch(ctx, time.Minute, 0.9, nil)
		_, token := a.CreateToken(ctx, p2pnode.RoleWorker, time.Hour, 1)
		_, revoke := a.Revoke(ctx, "cedar")
		_, act := a.Act(ctx, "stop", "cedar", "web", exec.VerbOptions{})
		logs := a.Logs(ctx, "cedar", "web", exec.LogRead{}, func(exec.LogLine) error { return nil })
		_, tokens := a.Tokens(ctx)
		w.nodes[2].Verdict = p2pnode.Unreachable
		_, forget := a.Forget(ctx, "cedar")
		for what, err := range map[string]error{"revoke": revoke, "forget": forget, "token ls": tokens, "token rm": a.RemoveToken(ctx, "t"), "launch": launch, "token": token, "promote": a.Promote(ctx, "cedar"), "act": act, "logs": logs, "recall": a.Recall(ctx, "")} {
			if what == "recall" && c.code == "" {
				continue
			}
			if code(err) != c.code || c.code != "" && p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
				t.Errorf("%s may %s: %v", c.name, what, err)
			}
		}
		if on := a.Manage(ctx, true); (on == nil) != (c.standing != nil && c.standing.Role == p2pnode.RoleManager) {
			t.Errorf("%s may manage: %v", c.name, on)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	_, err := Dial(t.Context(), t.TempDir())
	if p2pnode.ExitCode(err) != p2pnode.ExitUnreachable || !strings.Contains(err.Error(), "not running") {
		t.Errorf("%v", err)
	}
}
