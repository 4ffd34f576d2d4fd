package main

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/manage"
)

// doctorDoc is `doctor -o json`.
type doctorDoc struct {
	Schema string        `json:"schema"`
	OK     bool          `json:"ok"`
	Checks []doctorCheck `json:"checks"`
}

// doctorCheck is one thing that was looked at.
type doctorCheck struct {
	Check string `json:"check"`
	OK    bool   `json:"ok"`
	Warn  bool   `json:"warning,omitempty"` // works, and still somebody should look
	Text  string `json:"text"`
	Fix   string `json:"fix,omitempty"`
}

// lowDisk is when a data folder's file system is said to be nearly full.
const lowDisk = 100 << 20

func (a *app) doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Look at this host from every side and say what is wrong", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := clientDir(a.data)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 15*time.Second)
			defer cancel()
			doc := doctorDoc{Schema: p2pnode.Schema("doctor"), OK: true}
			examine(ctx, dir, func(c doctorCheck) {
				if c.OK && !c.Warn {
					c.Fix = ""
				}
				doc.Checks = append(doc.Checks, c)
				doc.OK = doc.OK && c.OK
			})
			err = a.show(view{doc: doc, items: items(doc.Checks), print: func(p *printer) { printDoctor(p, doc) }})
			if err == nil && !doc.OK {
				return quietError(p2pnode.ExitUnhealthy)
			}
			return err
		},
	}
}

func printDoctor(p *printer, doc doctorDoc) {
	for _, c := range doc.Checks {
		mark := cell{"ok  ", good}
		switch {
		case !c.OK:
			mark = cell{"FAIL", bad}
		case c.Warn:
			mark = cell{"warn", unsure}
		}
		p.line("%s  %-16s %s", p.paint(mark), c.Check, c.Text)
		if c.Fix != "" {
			p.line("      %-16s %s", "", c.Fix)
		}
	}
}

// examine looks at one thing after the other, from the ground up.
func examine(ctx context.Context, dir string, say func(doctorCheck)) {
	disk(dir, say)
	if !hostProcesses(ctx, dir, say) {
		return
	}
	client, err := manage.Dial(ctx, dir)
	if err != nil {
		say(failed("node", err, "p2pnode logs @node"))
		return
	}
	defer client.Close()
	st, err := client.Status(ctx)
	if err != nil {
		say(failed("node", err, "p2pnode logs @node"))
		return
	}
	reach(ctx, st, say)
	for _, w := range st.Warnings {
		say(doctorCheck{Check: w.Code, OK: w.Severity != "critical", Warn: true, Text: w.Text, Fix: w.Fix})
	}
	doc, err := client.Nodes(ctx)
	for _, n := range doc.Nodes {
		if err == nil && n.Verdict != p2pnode.Alive && n.Verdict != p2pnode.Left {
			say(doctorCheck{Check: "member " + n.Name, Text: "is " + string(n.Verdict), Fix: "p2pnode nodes why " + n.Name})
		}
	}
	if err == nil {
		say(doctorCheck{Check: "members", OK: true, Text: count(len(doc.Nodes), "member") + " known"})
	}
}

func failed(check string, err error, fix string) doctorCheck {
	if e, ok := err.(*p2pnode.Error); ok {
		return doctorCheck{Check: check, Text: e.Text, Fix: first(e.Fix, fix)}
	}
	return doctorCheck{Check: check, Text: err.Error(), Fix: fix}
}

func disk(dir string, say func(doctorCheck)) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		say(failed("data folder", err, "name it with --data DIR"))
		return
	}
	free := int64(fs.Bavail) * fs.Bsize
	say(doctorCheck{Check: "data folder", OK: free > lowDisk, Text: fmt.Sprintf("%s, %d MB free", dir, free>>20), Fix: "make room: reports and logs cannot be kept"})
}

// hostProcesses looks at exec, door, node process and services; false if exec
// does not answer.
func hostProcesses(ctx context.Context, dir string, say func(doctorCheck)) bool {
	client, err := exec.Dial(ctx, dir, exec.RoleCLI)
	if err != nil {
		say(failed("exec", err, ""))
		return false
	}
	defer client.Close()
	st, err := client.Status(ctx)
	if err != nil {
		say(failed("exec", err, ""))
		return false
	}
	say(doctorCheck{Check: "exec", OK: len(st.Degraded) == 0, Text: fmt.Sprintf("pid %d%s", st.PID, prefixed(", degraded: ", words(st.Degraded...))), Fix: "p2pnode ps --all"})
	for _, s := range append(ownProcesses(st)[1:], st.Services...) {
		ok := s.State == p2pnode.StateUp || s.State == p2pnode.StateStopped
		say(doctorCheck{Check: s.Name, OK: ok, Text: words(string(s.State), prefixed("since ", ago(s.Since)), s.Why), Fix: "p2pnode logs " + s.Name})
	}
	return true
}

// reach dials this host's own ports as others would.
func reach(ctx context.Context, st p2pnode.StatusDoc, say func(doctorCheck)) {
	if st.Node == nil {
		return
	}
	var d net.Dialer
	for what, addr := range map[string]string{"node port": first(st.Node.Listen...), "door port": st.Node.Door} {
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			continue
		}
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, port))
		cancel()
		if err != nil {
			say(failed(what, err, "p2pnode ps --all"))
			continue
		}
		conn.Close()
		say(doctorCheck{Check: what, OK: true, Text: addr + " accepts"})
	}
}
