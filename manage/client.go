package manage

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"p2pnode"
)

// Client calls an API in another process. It is safe for concurrent use.
type Client struct {
	dir  string
	http *http.Client
}

// Dial connects to the node process that works in the data folder dir. Where none
// answers the error says what to do (exit 4).
func Dial(ctx context.Context, dir string) (*Client, error) {
	c := &Client{dir: dir}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialUnix(ctx, filepath.Join(dir, "run"), SocketName)
		},
	}}
	conn, err := dialUnix(ctx, filepath.Join(dir, "run"), SocketName)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, c.away()
	}
	conn.Close()
	return c, nil
}

// Close ends idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

func dialUnix(ctx context.Context, dir, name string) (net.Conn, error) {
	folder, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	d := net.Dialer{Timeout: dialTime}
	return d.DialContext(ctx, "unix", fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), name))
}

// away tells a person who answers on this host and who does not.
func (c *Client) away() error {
	e := &p2pnode.Error{
		Code: "daemon-unreachable", Exit: p2pnode.ExitUnreachable,
		Text: "p2pnode is not running on " + c.dir, Fix: "start it, or name its folder with --data DIR",
	}
	if conn, err := dialUnix(context.Background(), filepath.Join(c.dir, "run"), "exec.sock"); err == nil {
		conn.Close()
		e.Code, e.Text, e.Fix = "node-unreachable", "the node process does not answer (it may be starting)", "see: p2pnode ps --all"
	}
	return e
}

// post calls a verb and reads its answer into out.
func post[T any](ctx context.Context, c *Client, verb string, args call) (out T, err error) {
	resp, err := c.ask(ctx, verb, args)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return out, c.failed(ctx, err)
	}
	return out, json.Unmarshal(raw, &out)
}

// ask calls a verb. Of an answer that is none but an error the body is read and closed.
func (c *Client) ask(ctx context.Context, verb string, args call) (*http.Response, error) {
	body, err := json.Marshal(args)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://node/v1/"+verb, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	var doc p2pnode.ErrorDoc
	if json.Unmarshal(raw, &doc) == nil && doc.Error != nil {
		return nil, doc.Error
	}
	return nil, fmt.Errorf("%s: the node process answers %s", verb, resp.Status)
}

func (c *Client) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if _, ok := errors.AsType[*net.OpError](err); ok || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return c.away()
	}
	return err
}

// Status calls API.Status.
func (c *Client) Status(ctx context.Context) (p2pnode.StatusDoc, error) {
	return post[p2pnode.StatusDoc](ctx, c, "status", call{})
}

// Nodes calls API.Nodes.
func (c *Client) Nodes(ctx context.Context) (p2pnode.NodesDoc, error) {
	return post[p2pnode.NodesDoc](ctx, c, "nodes", call{})
}

// Node calls API.Node.
func (c *Client) Node(ctx context.Context, name string) (p2pnode.NodesDoc, error) {
	return post[p2pnode.NodesDoc](ctx, c, "node", call{Node: name})
}

// Why calls API.Why.
func (c *Client) Why(ctx context.Context, name string) (p2pnode.WhyDoc, error) {
	return post[p2pnode.WhyDoc](ctx, c, "why", call{Node: name})
}

// Path calls API.Path.
func (c *Client) Path(ctx context.Context, from, to string) (p2pnode.PathDoc, error) {
	return post[p2pnode.PathDoc](ctx, c, "path", call{Node: from, To: to})
}

// Ping calls API.Ping.
func (c *Client) Ping(ctx context.Context, name string) (p2pnode.PingDoc, error) {
	return post[p2pnode.PingDoc](ctx, c, "ping", call{Node: name})
}

// Agents calls API.Agents.
func (c *Client) Agents(ctx context.Context) (p2pnode.AgentsDoc, error) {
	return post[p2pnode.AgentsDoc](ctx, c, "agents", call{})
}

// Launch calls API.Launch.
func (c *Client) Launch(ctx context.Context, slo time.Duration, confidence float64, labels map[string]string) (p2pnode.OrderDoc, error) {
	return post[p2pnode.OrderDoc](ctx, c, "launch", call{SLO: slo, Confidence: confidence, Labels: labels})
}

// Recall calls API.Recall.
func (c *Client) Recall(ctx context.Context, id string) error {
	_, err := post[empty](ctx, c, "recall", call{ID: id})
	return err
}

// Incidents calls API.Incidents.
func (c *Client) Incidents(ctx context.Context) (p2pnode.IncidentsDoc, error) {
	return post[p2pnode.IncidentsDoc](ctx, c, "incidents", call{})
}

// Incident calls API.Incident.
func (c *Client) Incident(ctx context.Context, id string) (p2pnode.IncidentsDoc, error) {
	return post[p2pnode.IncidentsDoc](ctx, c, "incident", call{ID: id})
}

// Reports calls API.Reports.
func (c *Client) Reports(ctx context.Context) (p2pnode.ReportsDoc, error) {
	return post[p2pnode.ReportsDoc](ctx, c, "reports", call{})
}

// CreateToken calls API.CreateToken.
func (c *Client) CreateToken(ctx context.Context, role p2pnode.Role, ttl time.Duration, uses int) (p2pnode.TokenDoc, error) {
	return post[p2pnode.TokenDoc](ctx, c, "token", call{Role: role, TTL: ttl, Uses: uses})
}

// Promote calls API.Promote.
func (c *Client) Promote(ctx context.Context, name string) error {
	_, err := post[empty](ctx, c, "promote", call{Node: name})
	return err
}

// Manage calls API.Manage.
func (c *Client) Manage(ctx context.Context, on bool) error {
	_, err := post[empty](ctx, c, "manage", call{On: on})
	return err
}

// Leave calls API.Leave.
func (c *Client) Leave(ctx context.Context) error {
	_, err := post[empty](ctx, c, "leave", call{})
	return err
}

// Join calls API.Join.
func (c *Client) Join(ctx context.Context, addr string) error {
	_, err := post[empty](ctx, c, "join", call{To: addr})
	return err
}

// Events calls API.Events.
func (c *Client) Events(ctx context.Context, since uint64, follow bool, f func(p2pnode.EventDoc) error) error {
	url := fmt.Sprintf("http://node/v1/events?since=%d", since)
	if follow {
		url += "&follow=1"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.failed(ctx, err)
	}
	defer resp.Body.Close()
	dec := json.NewDecoder(resp.Body)
	for {
		var e p2pnode.EventDoc
		if err := dec.Decode(&e); err != nil {
			if errors.Is(err, io.EOF) && !follow {
				return nil
			}
			return c.failed(ctx, err)
		}
		if err := f(e); err != nil {
			return err
		}
	}
}
