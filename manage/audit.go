package manage

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"p2pnode"
	"p2pnode/exec"
)

// reading are the verbs that change nothing. Every other one is an act: a new verb
// is in the audit log unless somebody says here that it only reads.
var reading = map[string]bool{
	"status": true, "nodes": true, "node": true, "why": true, "path": true, "ping": true, "agents": true, "incidents": true, "incident": true,
	"reports": true, "tokens": true, "pending": true,
}

type credKey struct{}

// withCred remembers who is at the other end of a connection, by the kernel's word.
func withCred(ctx context.Context, conn net.Conn) context.Context {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return ctx
	}
	if cred, err := peerOf(c); err == nil {
		return context.WithValue(ctx, credKey{}, cred)
	}
	return ctx
}

func peerOf(c *net.UnixConn) (cred *unix.Ucred, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	if ctl := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); ctl != nil {
		return nil, ctl
	}
	return cred, err
}

// audited writes an entry for each act that passes to next, into the file into which
// exec writes its own.
func (a *API) audited(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		verb, ok := strings.CutPrefix(r.URL.Path, "/v1/")
		if !ok || r.Method != http.MethodPost || reading[verb] {
			next.ServeHTTP(w, r)
			return
		}
		raw, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if err != nil {
			raw = nil // next says what is wrong with it
		}
		r.Body = io.NopCloser(bytes.NewReader(raw))
		seen := &outcome{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(seen, r)
		if seen.code == http.StatusNotFound || seen.code == http.StatusMethodNotAllowed {
			return // no verb of ours
		}
		e := described(verb, raw)
		if cred, ok := r.Context().Value(credKey{}).(*unix.Ucred); ok {
			e.PID, e.UID = int(cred.Pid), int(cred.Uid)
		}
		e.Outcome, e.Text = seen.said()
		a.note(e)
	})
}

// described says what was asked for.
func described(verb string, raw []byte) exec.AuditEntry {
	e := exec.AuditEntry{At: time.Now(), Verb: verb, Role: exec.RoleCLI}
	var asked map[string]any
	if json.Unmarshal(raw, &asked) != nil {
		return e
	}
	for _, key := range []string{"node", "to", "id"} {
		if text, ok := asked[key].(string); ok && e.Target == "" {
			e.Target = text
			delete(asked, key)
		}
	}
	for _, key := range []string{"slo", "ttl"} {
		if ns, ok := asked[key].(float64); ok {
			asked[key] = time.Duration(ns).String()
		}
	}
	if read, ok := asked["read"].(map[string]any); ok {
		delete(read, "key") // it says nothing to anybody
	}
	if len(asked) > 0 {
		e.With = asked
	}
	return e
}

// outcome keeps how a request was answered; of an error also what it says.
type outcome struct {
	http.ResponseWriter
	code int
	body bytes.Buffer
}

func (o *outcome) WriteHeader(code int) {
	o.code = code
	o.ResponseWriter.WriteHeader(code)
}

// Unwrap lets a streamed answer be flushed.
func (o *outcome) Unwrap() http.ResponseWriter { return o.ResponseWriter }

func (o *outcome) Write(b []byte) (int, error) {
	if o.code != http.StatusOK && o.body.Len()+len(b) <= maxRequest {
		o.body.Write(b) // an answer that went well may hold a token
	}
	return o.ResponseWriter.Write(b)
}

func (o *outcome) said() (word, text string) {
	if o.code == http.StatusOK {
		return "ok", ""
	}
	var doc p2pnode.ErrorDoc
	if json.Unmarshal(o.body.Bytes(), &doc) != nil || doc.Error == nil {
		return "failed", ""
	}
	if doc.Error.Exit == p2pnode.ExitNotPermitted {
		return "refused", doc.Error.Text
	}
	return "failed", doc.Error.Text
}

// note logs an entry and appends it to the audit log. A disk that does not take it is
// said and keeps nobody from acting.
func (a *API) note(e exec.AuditEntry) {
	line := a.cfg.Log.Info().Str("verb", e.Verb).Int("pid", e.PID).Int("uid", e.UID).Str("outcome", e.Outcome)
	if e.Target != "" {
		line = line.Str("target", e.Target)
	}
	if e.Text != "" {
		line = line.Str("detail", e.Text)
	}
	line.Msg("audit")
	if err := a.audit.Add(e); err != nil {
		a.cfg.Log.Error().Err(err).Msg("audit log not written")
	}
}
