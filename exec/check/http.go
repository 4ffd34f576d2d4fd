package check

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"

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
	conn, err := dialURL(ctx, u)
	if err != nil {
		return nil, nil, err
	}
	defer conn.Close()
	stop := conn.endWith(ctx)
	defer stop()
	b := buffers.Get().(*bufio.ReadWriter)
	defer buffers.Put(b)
	b.Reader.Reset(conn)
	b.Writer.Reset(conn)
	if err := cmp.Or(req.Write(b), b.Flush()); err != nil {
		return nil, nil, err
	}
	resp, err := http.ReadResponse(b.Reader, req)
	if err != nil {
		return nil, nil, fmt.Errorf("GET %s: %w", u, err)
	}
	// The body is not closed: that would read all of it. The connection is.
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	resp.Body = nil // it reads from b, which is another question's now
	return resp, body, err
}

// buffers serve one question after the other: new ones for each are most of what a
// collector would have to do in an exec that has checks.
var buffers = sync.Pool{New: func() any {
	return bufio.NewReadWriter(bufio.NewReader(nil), bufio.NewWriter(nil))
}}

// dialURL opens a connection to the host of u, with TLS for https.
func dialURL(ctx context.Context, u *url.URL) (connection, error) {
	switch u.Scheme {
	case "http":
		return dial(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "80")))
	case "https":
		t := tls.Dialer{NetDialer: &net.Dialer{KeepAlive: -1}, Config: &tls.Config{NextProtos: []string{"http/1.1"}}}
		conn, err := t.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")))
		return connection{conn}, err
	}
	return connection{}, fmt.Errorf("cannot ask %s: only http and https", u)
}
