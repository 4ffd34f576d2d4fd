package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"p2pnode"
	"p2pnode/test/history"
)

// demoDoc is `demo -o json`.
type demoDoc struct {
	Schema string      `json:"schema"`
	OK     bool        `json:"ok"`
	Nodes  int         `json:"nodes"`
	TookMS float64     `json:"took_ms"`
	Faults []demoFault `json:"faults"`
	Broken []string    `json:"broken_promises,omitempty"` // what the offline checker found
	Failed string      `json:"failed,omitempty"`
	Kept   string      `json:"kept,omitempty"`
}

// demoFault is one thing that was broken, as seen from outside, and what other
// nodes say of its repair.
type demoFault struct {
	Fault      string            `json:"fault"`
	Node       string            `json:"node"`
	Service    string            `json:"service,omitempty"`
	InjectedAt time.Time         `json:"injected_at"`
	OutageMS   float64           `json:"outage_ms,omitempty"`
	Repaired   bool              `json:"repaired"`
	Brake      bool              `json:"brake"`
	Incident   *p2pnode.Incident `json:"incident,omitempty"`
	KnownBy    int               `json:"known_by"` // living nodes that hold the report
}

// demoLimit is when the demo gives up as a whole; what is left of its minute is for
// ending and judging.
const demoLimit = 54 * time.Second

// demo is one run.
type demo struct {
	a       *app
	p       *printer // narration; nil with -o json
	self    string
	base    string
	began   time.Time
	leash   *os.File
	leashed *os.File
	hosts   []*demoHost
	doc     demoDoc
	rest    time.Time // when all was well again, before the hosts were stopped
	history *p2pnode.History
}

func (a *app) demoCommand() *cobra.Command {
	var nodes int
	var keep bool
	cmd := &cobra.Command{
		Use: "demo", Short: "Five hosts on this machine; things die and come back (under a minute, no root)", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if nodes < 5 || nodes > 9 {
				return usage("--nodes is %d, should be from 5 to 9", nodes)
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGHUP)
			defer stop()
			ctx, cancel := context.WithTimeout(ctx, demoLimit)
			defer cancel()
			return a.demo(ctx, nodes, keep)
		},
	}
	cmd.Flags().IntVar(&nodes, "nodes", 5, "so many hosts")
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the hosts' folders for a look afterwards")
	return cmd
}

func (a *app) demo(ctx context.Context, nodes int, keep bool) (err error) {
	d := &demo{a: a, began: time.Now(), doc: demoDoc{Schema: p2pnode.Schema("demo"), Nodes: nodes, Faults: []demoFault{}}}
	if a.format == formatTable || a.format == formatWide {
		d.p = a.printer()
	}
	if err := d.prepare(nodes); err != nil {
		return err
	}
	failed := d.story(ctx)
	d.end(ctx.Err() == nil)
	if errors.Is(ctx.Err(), context.Canceled) { // Ctrl-C: a story without an end proves nothing
		os.RemoveAll(d.base)
		return context.Canceled
	}
	failed = errors.Join(failed, d.judge())
	d.doc.OK = failed == nil
	d.doc.TookMS = p2pnode.Milliseconds(time.Since(d.began))
	if keep || failed != nil {
		d.doc.Kept = d.base
	} else {
		os.RemoveAll(d.base)
	}
	return d.verdict(failed)
}

// demoNames are the hosts, in the order of the ring.
var demoNames = []string{"ash", "birch", "cedar", "elm", "fir", "hazel", "juniper", "larch", "maple"}

func (d *demo) prepare(nodes int) (err error) {
	if d.self, err = os.Executable(); err != nil {
		return err
	}
	// Short on purpose: paths of unix sockets are limited to 107 bytes.
	if d.base, err = os.MkdirTemp("", "p2pnode-demo-"); err != nil {
		return err
	}
	if d.leashed, d.leash, err = os.Pipe(); err != nil {
		return err
	}
	if d.history, err = p2pnode.OpenHistory(filepath.Join(d.base, "harness.history.jsonl"), "", history.Harness); err != nil {
		return err
	}
	taken := map[int]bool{}
	for _, name := range demoNames[:nodes] {
		dir := filepath.Join(d.base, name)
		h := &demoHost{name: name, dir: dir, files: dir}
		for port := 0; port == 0; {
			if port, err = pickPort("127.0.0.1", 3); err != nil {
				return err
			}
			if taken[port] || taken[port+1] || taken[port+2] {
				port = 0
				continue
			}
			h.listen, h.door, h.web = port, port+1, port+2
			taken[port], taken[port+1], taken[port+2] = true, true, true
		}
		if err := h.configure(d.self); err != nil {
			return err
		}
		d.hosts = append(d.hosts, h)
	}
	return nil
}

// say narrates, with the time since the start.
func (d *demo) say(format string, args ...any) {
	if d.p != nil {
		stamp := cell{fmt.Sprintf("%6.2f s", time.Since(d.began).Seconds()), faint}
		d.p.line("%s  %s", d.p.paint(stamp), fmt.Sprintf(format, args...))
	}
}

// detail narrates below the last line.
func (d *demo) detail(format string, args ...any) {
	if d.p != nil {
		d.p.line("          %s", fmt.Sprintf(format, args...))
	}
}

// ring is the neighbours of host i.
func (d *demo) ring(i int) (before, after int) {
	n := len(d.hosts)
	return (i + n - 1) % n, (i + 1) % n
}

// startAll starts every host; each refuses links to all but its two neighbours,
// and joins the one that is nearer to the founder as soon as that is a member.
func (d *demo) startAll(ctx context.Context) error {
	n := len(d.hosts)
	for far := 0; far <= n/2; far++ {
		near := []int{far, (n - far) % n} // both ways around the ring
		for k, i := range slices.Compact(near) {
			via := i - 1
			if k == 1 {
				via = (i + 1) % n
			}
			if far > 0 && !until(patience, 10*time.Millisecond, func() bool { return ctx.Err() != nil || isMember(ctx, d.hosts[via].dir) }) {
				return fmt.Errorf("%s is in no cluster; its output is in %s.log", d.hosts[via].name, d.hosts[via].files)
			}
			if err := d.hosts[i].start(d.self, d.leashed, d.hostFlags(i, via)...); err != nil {
				return fmt.Errorf("cannot start %s: %w", d.hosts[i].name, err)
			}
		}
	}
	return ctx.Err()
}

// hostFlags are host i's: whom it joins, unless it is the founder, and whom it
// refuses.
func (d *demo) hostFlags(i, via int) []string {
	var args []string
	if i > 0 {
		args = append(args, "--join", local(d.hosts[via].listen))
	}
	before, after := d.ring(i)
	for j, other := range d.hosts {
		if j != i && j != before && j != after {
			args = append(args, "--deny-link", other.name)
		}
	}
	return args
}

// living are the hosts that were not killed for good.
func (d *demo) living() []*demoHost {
	return slices.DeleteFunc(slices.Clone(d.hosts), func(h *demoHost) bool { return h.gone })
}

// other is a living host that is not h: whoever is asked about h.
func (d *demo) other(h *demoHost) *demoHost {
	for _, o := range d.living() {
		if o != h {
			return o
		}
	}
	return nil
}

// end stops the hosts in order, cuts the leash, and proves that nothing is left.
func (d *demo) end(orderly bool) {
	for _, h := range d.living() {
		if h.cmd != nil && orderly {
			h.cmd.Process.Signal(syscall.SIGTERM)
		}
	}
	for _, h := range d.living() {
		if h.ended == nil || !orderly {
			continue
		}
		select {
		case <-h.ended:
		case <-time.After(8 * time.Second):
		}
	}
	d.leash.Close()
	d.leashed.Close()
	left := func() (all []process) {
		for _, h := range d.hosts {
			all = append(all, h.everything()...)
		}
		return all
	}
	if !until(2*time.Second, 20*time.Millisecond, func() bool { return len(left()) == 0 }) {
		for _, p := range left() {
			d.doc.Broken = append(d.doc.Broken, fmt.Sprintf("process %d was left behind", p.pid))
			p.kill(syscall.SIGKILL)
		}
	}
	d.history.Close()
}

// judge runs the offline checker over what all hosts wrote down.
func (d *demo) judge() error {
	events, err := history.ReadFiles(filepath.Join(d.base, "*.history.jsonl"))
	if err != nil {
		return fmt.Errorf("no history to judge: %w", err)
	}
	var gone []string
	for _, h := range d.hosts {
		if h.gone {
			gone = append(gone, h.name)
		}
	}
	for _, v := range history.Check(events, history.Options{Gone: gone, EndView: !d.rest.IsZero(), At: d.rest}) {
		d.doc.Broken = append(d.doc.Broken, v.String())
	}
	d.say("offline checker: %d lines of history, %s", len(events), count(len(d.doc.Broken), "broken promise"))
	if len(d.doc.Broken) > 0 {
		return errors.New("the history shows broken promises:\n  " + strings.Join(d.doc.Broken, "\n  "))
	}
	return nil
}

// verdict prints the end of the story; err says what went wrong.
func (d *demo) verdict(failed error) error {
	repaired, faults := 0, 0
	for _, f := range d.doc.Faults {
		if f.Fault != faultHost {
			faults++
			if f.Repaired {
				repaired++
			}
		}
	}
	if d.p == nil {
		if failed != nil {
			d.doc.Failed = failed.Error()
		}
		raw, _ := json.MarshalIndent(d.doc, "", "  ")
		fmt.Fprintln(d.a.stdout, string(raw))
	}
	switch {
	case failed != nil && d.p == nil:
		return quietError(p2pnode.ExitFailed)
	case failed != nil:
		return &p2pnode.Error{Code: "demo-failed", Text: failed.Error(), Fix: "the hosts' folders, logs and histories are kept in " + d.base}
	}
	d.say("%s: %d of %d failures repaired by agents, seen from outside, in %.1f s", d.good("all well"), repaired, faults, d.doc.TookMS/1000)
	if d.doc.Kept != "" {
		d.detail("kept in %s", d.doc.Kept)
	}
	return nil
}

func (d *demo) good(text string) string {
	if d.p == nil {
		return text
	}
	return d.p.paint(cell{text, good})
}
