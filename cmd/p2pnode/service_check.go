package main

import (
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v4"

	"p2pnode"
)

// checks reads the questions that are put apart.
func (r *reader) checks(n *yaml.Node, where string) *p2pnode.Checks {
	c, before := &p2pnode.Checks{}, len(r.problems)
	one := func(which string, into **p2pnode.Check) func(*yaml.Node) {
		where := where + ": " + which
		return func(n *yaml.Node) {
			*into = r.check(n, where, func(n *yaml.Node) {
				r.bad(n, "%s: on_failure belongs to check: of checks, ready makes it unready and live restarts it", where)
			})
		}
	}
	r.fields(n, where, map[string]func(*yaml.Node){
		p2pnode.CheckStart: one(p2pnode.CheckStart, &c.Start),
		p2pnode.CheckReady: one(p2pnode.CheckReady, &c.Ready),
		p2pnode.CheckLive:  one(p2pnode.CheckLive, &c.Live),
	})
	if *c == (p2pnode.Checks{}) && len(r.problems) == before {
		r.bad(n, "%s asks nothing: add start, ready or live, or leave it out", where)
	}
	return c
}

// checkOfAll reads the one that asks for start, ready and live at once.
func (r *reader) checkOfAll(n *yaml.Node, where string) *p2pnode.Check {
	onFailure := ""
	c := r.check(n, where, r.oneOf(where+": on_failure", &onFailure, "restart", "unready"))
	c.Unready = onFailure == "unready"
	return c
}

func (r *reader) check(n *yaml.Node, where string, onFailure func(*yaml.Node)) *p2pnode.Check {
	c := &p2pnode.Check{Every: p2pnode.DefaultCheckEvery, Jitter: -1, Failures: p2pnode.DefaultFailures, Good: 1}
	r.fields(n, where, map[string]func(*yaml.Node){
		"http":       r.text(where+": http", &c.HTTP),
		"tcp":        r.text(where+": tcp", &c.TCP),
		"send":       r.text(where+": send", &c.Send),
		"expect":     r.text(where+": expect", &c.Expect),
		"exec":       r.argv(where+": exec", &c.Exec),
		"unix":       r.folder(where+": unix", &c.Unix),
		"status":     r.statusRanges(where+": status", &c.Status),
		"body":       r.text(where+": body", &c.Body),
		"grpc":       r.text(where+": grpc", &c.GRPC),
		"service":    r.text(where+": service", &c.Service),
		"file":       r.folder(where+": file", &c.File),
		"newer":      r.duration(where+": newer", &c.Newer, 10*time.Millisecond),
		"on_failure": onFailure,
		"every":      r.duration(where+": every", &c.Every, 10*time.Millisecond),
		"jitter":     r.duration(where+": jitter", &c.Jitter, 0),
		"timeout":    r.duration(where+": timeout", &c.Timeout, time.Millisecond),
		"failures":   r.number(where+": failures", &c.Failures, 1, 1000),
		"successes":  r.number(where+": successes", &c.Good, 1, 1000),
	})
	if c.Timeout == 0 {
		c.Timeout = time.Second
	}
	if c.Jitter < 0 {
		c.Jitter = c.Every / p2pnode.DefaultJitterPart
	}
	if c.Jitter > c.Every {
		r.bad(n, "%s: jitter is %s, should be at most every, which is %s", where, c.Jitter, c.Every)
	}
	if c.File != "" && c.Newer == 0 {
		c.Newer = p2pnode.DefaultNewer
	}
	r.question(n, where, c)
	return c
}

// question refuses a check that asks nothing, two things at once, or nonsense.
func (r *reader) question(n *yaml.Node, where string, c *p2pnode.Check) {
	questions := 0
	for _, asked := range []bool{c.HTTP != "", c.TCP != "", len(c.Exec) > 0, c.Unix != "", c.GRPC != "", c.File != ""} {
		if asked {
			questions++
		}
	}
	if questions != 1 {
		r.bad(n, "%s should have exactly one of http, tcp, exec, unix, grpc, file", where)
		return
	}
	if c.HTTP != "" {
		// {i} is the number of a replica: it is filled in later.
		if u, err := url.Parse(strings.ReplaceAll(c.HTTP, "{i}", "1")); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			r.bad(n, "%s: http is %q, should be a URL like http://127.0.0.1:8080/", where, c.HTTP)
		}
	}
	for key, addr := range map[string]string{"tcp": c.TCP, "grpc": c.GRPC} {
		if _, _, err := net.SplitHostPort(addr); addr != "" && err != nil {
			r.bad(n, "%s: %s is %q, should be HOST:PORT", where, key, addr)
		}
	}
	for _, belongs := range []struct {
		said bool
		to   bool
		text string
	}{
		{c.Send != "" || c.Expect != "", c.TCP != "" || c.Unix != "", "send and expect belong to tcp and unix"},
		{c.Status != nil || c.Body != "", c.HTTP != "", "status and body belong to http"},
		{c.Service != "", c.GRPC != "", "service belongs to grpc"},
		{c.Newer != 0, c.File != "", "newer belongs to file"},
	} {
		if belongs.said && !belongs.to {
			r.bad(n, "%s: %s", where, belongs.text)
		}
	}
}

// statusRanges accepts 204, 200-299, or a list of such.
func (r *reader) statusRanges(what string, into *[]p2pnode.StatusRange) func(*yaml.Node) {
	return func(n *yaml.Node) {
		var texts []string
		r.texts(what, &texts)(n)
		for _, t := range texts {
			first, last, isRange := strings.Cut(t, "-")
			if !isRange {
				last = first
			}
			low, errLow := strconv.Atoi(first)
			high, errHigh := strconv.Atoi(last)
			if errLow != nil || errHigh != nil || low < 100 || high > 599 || low > high {
				r.bad(n, "%s is %q, should be like 204 or 200-299", what, t)
				return
			}
			*into = append(*into, p2pnode.StatusRange{Low: low, High: high})
		}
	}
}
