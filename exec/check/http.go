package check

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"p2pnode"
)

const maxRedirects = 3

// askHTTP wants a status below 400, or one that c names, and c.Body in the answer.
// Redirects are followed on the same host only:
// another host's answer says nothing about this service.
//
// One connection for each question, written and read here: a http.Transport costs
// two goroutines and three times the CPU, every second, for every service.
func askHTTP(ctx context.Context, c p2pnode.Check) error {
	u, err := url.Parse(c.HTTP)
	if err != nil {
		return err
	}
	host := u.Host
	for range maxRedirects + 1 {
		resp, body, err := get(ctx, u)
		if err != nil {
			return err
		}
		if len(c.Status) == 0 || !wanted(c.Status, resp.StatusCode) {
			next, err := resp.Location()
			if resp.StatusCode >= 300 && resp.StatusCode < 400 && err == nil && next.Host == host {
				u = next
				continue
			}
		}
		if resp.StatusCode >= 400 && len(c.Status) == 0 || len(c.Status) > 0 && !wanted(c.Status, resp.StatusCode) {
			return fmt.Errorf("GET %s: %s", u, resp.Status)
		}
		if !bytes.Contains(body, []byte(c.Body)) {
			return fmt.Errorf("GET %s: %q is not in its %d bytes", u, c.Body, len(body))
		}
		return nil
	}
	return errors.New("too many redirects")
}

func wanted(ranges []p2pnode.StatusRange, code int) bool {
	return slices.ContainsFunc(ranges, func(r p2pnode.StatusRange) bool { return r.Low <= code && code <= r.High })
}

// get asks once and reads the answer and the beginning of its body.
func get(ctx context.Context, u *url.URL) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("User-Agent", "p2pnode-check")
	req.Close = true
	if u.User != nil {
		password, _ := u.User.Password()
		req.SetBasicAuth(u.User.Username(), password)
	}
	conn, err := dial(ctx, u)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	// Not SetDeadline(the context's): it may fire first, and the error would not
	// be told from one of the connection.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := req.Write(conn); err != nil {
		return nil, nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), req)
	if err != nil {
		return nil, nil, fmt.Errorf("GET %s: %w", u, err)
	}
	// The body is not closed: that would read all of it. The connection is.
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return resp, body, err
}

// dial opens a connection to the host of u, with TLS for https.
func dial(ctx context.Context, u *url.URL) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	port := u.Port()
	switch u.Scheme {
	case "http":
		if port == "" {
			port = "80"
		}
		return d.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	case "https":
		if port == "" {
			port = "443"
		}
		t := tls.Dialer{NetDialer: &d, Config: &tls.Config{NextProtos: []string{"http/1.1"}}}
		return t.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	}
	return nil, fmt.Errorf("cannot ask %s: only http and https", u)
}
