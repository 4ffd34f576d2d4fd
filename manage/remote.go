package manage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"p2pnode"
	"p2pnode/exec"
)

// Act has services of another host started, stopped, restarted or set aside.
func (a *API) Act(ctx context.Context, verb, node, target string, options exec.VerbOptions) (exec.VerbResult, error) {
	if err := a.mayManage(deed(verb) + " services of other hosts"); err != nil {
		return exec.VerbResult{}, err
	}
	n, id, err := a.find(node)
	if err != nil {
		return exec.VerbResult{}, err
	}
	res, err := a.cfg.Remote.Act(ctx, id, verb, target, options)
	return res, said(err, deed(verb), target, n.Name)
}

// deed is what a verb does, for people.
func deed(verb string) string {
	if verb == exec.VerbMaintain || verb == exec.VerbObserve {
		return "set aside"
	}
	return verb
}

// said is why something could not be done on another host.
func said(err error, verb, target, node string) error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*p2pnode.Error](err); ok {
		refused := *e
		refused.Text = fmt.Sprintf("%s refuses to %s %q: %s", node, verb, target, e.Text)
		return &refused
	}
	return &p2pnode.Error{Code: "no-answer", Text: fmt.Sprintf("cannot %s %q on %s: %v", verb, target, node, err), Fix: "see: p2pnode nodes why " + node}
}

// Logs calls f with each line of another host's logs that read asks for, see Remote.
func (a *API) Logs(ctx context.Context, node, target string, read exec.LogRead, f func(exec.LogLine) error) error {
	if err := a.mayManage("read logs of other hosts"); err != nil {
		return err
	}
	n, id, err := a.find(node)
	if err != nil {
		return err
	}
	err = a.cfg.Remote.Logs(ctx, id, target, read, f)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return said(err, "show the log of", target, n.Name)
}

// logItem is one line of a streamed answer; the last one may be an error.
type logItem struct {
	exec.LogLine
	Error *p2pnode.Error `json:"error,omitempty"`
}

// serveLogs streams one JSON object per line. It tells that it has begun with the first
// one, so that a refusal is an answer like any other's.
func (a *API) serveLogs(w http.ResponseWriter, r *http.Request) {
	var c call
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&c); err != nil {
		answer(w, nil, &p2pnode.Error{Code: "bad-request", Text: "request not understood: " + err.Error(), Exit: p2pnode.ExitUsage})
		return
	}
	flush, enc, begun := http.NewResponseController(w), json.NewEncoder(w), false
	tell := func(i logItem) error {
		if !begun {
			w.Header().Set("Content-Type", "application/jsonl")
			begun = true
		}
		return errors.Join(enc.Encode(i), flush.Flush())
	}
	err := a.Logs(r.Context(), c.Node, c.Target, *cmp.Or(c.Read, &exec.LogRead{}), func(l exec.LogLine) error { return tell(logItem{LogLine: l}) })
	switch e, ok := errors.AsType[*p2pnode.Error](err); {
	case err == nil && !begun:
		w.WriteHeader(http.StatusOK)
	case err != nil && !begun:
		answer(w, nil, err)
	case ok:
		tell(logItem{Error: e})
	}
}

// Logs calls API.Logs.
func (c *Client) Logs(ctx context.Context, node, target string, read exec.LogRead, f func(exec.LogLine) error) error {
	resp, err := c.ask(ctx, "logs", call{Node: node, Target: target, Read: &read})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for dec := json.NewDecoder(resp.Body); ; {
		var i logItem
		switch err := dec.Decode(&i); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return c.failed(ctx, err)
		case i.Error != nil:
			return i.Error
		}
		if err := f(i.LogLine); err != nil {
			return err
		}
	}
}

// Act calls API.Act.
func (c *Client) Act(ctx context.Context, verb, node, target string, options exec.VerbOptions) (exec.VerbResult, error) {
	return post[exec.VerbResult](ctx, c, "act", call{Node: node, Act: verb, Target: target, Options: &options})
}
