package manage

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"p2pnode"
	"p2pnode/exec"
)

// SocketName is the operator API's socket in the run folder.
const SocketName = "node.sock"

// Serve answers on run/node.sock in the data folder until ctx ends. The socket is
// the owner's; the kernel's word on who connects is looked at as well.
func (a *API) Serve(ctx context.Context, dir string) error {
	ln, err := listenUnix(filepath.Join(dir, "run"), SocketName)
	if err != nil {
		return fmt.Errorf("cannot serve the operator: %w", err)
	}
	callers := &crowd{most: p2pnode.ShareOfFiles(maxCallers)}
	server := &http.Server{
		Handler: a.audited(a.handler()), ConnContext: withCred, ConnState: callers.moved, ReadHeaderTimeout: 5 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(ownersOnly{ln}); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// crowd closes connections that are one too many: whoever holds them must not take the
// descriptors that the node works with.
type crowd struct {
	most int
	now  atomic.Int64
}

func (c *crowd) moved(conn net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		if c.now.Add(1) > int64(c.most) {
			conn.Close()
		}
	case http.StateClosed, http.StateHijacked:
		c.now.Add(-1)
	}
}

// listenUnix makes the socket name in folder dir anew, mode 0600. The path is
// reached through a descriptor, since the kernel limits it to 107 bytes.
func listenUnix(dir, name string) (net.Listener, error) {
	folder, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer folder.Close()
	path := fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), name)
	fresh := path + ".new"
	os.Remove(fresh)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, err
	}
	// The name may mean another folder by the time it is closed: leave the file.
	ln.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(fresh, 0o600), os.Rename(fresh, path)); err != nil {
		ln.Close()
		return nil, err
	}
	return ln, nil
}

// ownersOnly accepts connections of this user and of root.
type ownersOnly struct{ net.Listener }

func (l ownersOnly) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || trusted(conn) {
			return conn, err
		}
		conn.Close()
	}
}

func trusted(conn net.Conn) bool {
	cred, err := peerOf(conn.(*net.UnixConn))
	return err == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
}

// call is the body of every request but events: the verbs' arguments by name.
type call struct {
	Node       string            `json:"node,omitempty"`
	To         string            `json:"to,omitempty"`
	ID         string            `json:"id,omitempty"`
	SLO        time.Duration     `json:"slo,omitempty"`
	Confidence float64           `json:"confidence,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Role       p2pnode.Role      `json:"role,omitempty"`
	TTL        time.Duration     `json:"ttl,omitempty"`
	Uses       int               `json:"uses,omitempty"`
	On         bool              `json:"on,omitempty"`
	Force      bool              `json:"force,omitempty"`
	Act        string            `json:"act,omitempty"`
	Target     string            `json:"target,omitempty"`
	Options    *exec.VerbOptions `json:"options,omitempty"`
	Read       *exec.LogRead     `json:"read,omitempty"`
}

// empty is the answer of verbs that have none.
type empty struct{}

// handler maps POST /v1/VERB to the verbs; every argument and answer is JSON.
func (a *API) handler() http.Handler {
	mux := http.NewServeMux()
	verb(mux, "status", func(ctx context.Context, _ call) (any, error) { return a.Status(ctx) })
	verb(mux, "nodes", func(ctx context.Context, _ call) (any, error) { return a.Nodes(ctx) })
	verb(mux, "node", func(ctx context.Context, c call) (any, error) { return a.Node(ctx, c.Node) })
	verb(mux, "why", func(ctx context.Context, c call) (any, error) { return a.Why(ctx, c.Node) })
	verb(mux, "path", func(ctx context.Context, c call) (any, error) { return a.Path(ctx, c.Node, c.To) })
	verb(mux, "ping", func(ctx context.Context, c call) (any, error) { return a.Ping(ctx, c.Node) })
	verb(mux, "agents", func(ctx context.Context, _ call) (any, error) { return a.Agents(ctx) })
	verb(mux, "launch", func(ctx context.Context, c call) (any, error) { return a.Launch(ctx, c.SLO, c.Confidence, c.Labels) })
	verb(mux, "recall", func(ctx context.Context, c call) (any, error) { return empty{}, a.Recall(ctx, c.ID) })
	verb(mux, "incidents", func(ctx context.Context, _ call) (any, error) { return a.Incidents(ctx) })
	verb(mux, "incident", func(ctx context.Context, c call) (any, error) { return a.Incident(ctx, c.ID) })
	mux.HandleFunc("POST /v1/reports", a.serveReports)
	verb(mux, "token", func(ctx context.Context, c call) (any, error) { return a.CreateToken(ctx, c.Role, c.TTL, c.Uses) })
	verb(mux, "tokens", func(ctx context.Context, _ call) (any, error) { return a.Tokens(ctx) })
	verb(mux, "token-remove", func(ctx context.Context, c call) (any, error) { return empty{}, a.RemoveToken(ctx, c.ID) })
	verb(mux, "forget", func(ctx context.Context, c call) (any, error) { return a.Forget(ctx, c.Node) })
	verb(mux, "revoke", func(ctx context.Context, c call) (any, error) { return a.Revoke(ctx, c.Node) })
	verb(mux, "promote", func(ctx context.Context, c call) (any, error) { return empty{}, a.Promote(ctx, c.Node) })
	verb(mux, "demote", func(ctx context.Context, c call) (any, error) { return a.Demote(ctx, c.Node, c.Force) })
	verb(mux, "pending", func(ctx context.Context, _ call) (any, error) { return a.Pending(ctx) })
	verb(mux, "approve", func(ctx context.Context, c call) (any, error) { return a.Approve(ctx, c.ID) })
	verb(mux, "open", func(ctx context.Context, c call) (any, error) { return a.Open(ctx, c.TTL) })
	verb(mux, "trust", func(ctx context.Context, c call) (any, error) { return empty{}, a.Trust(ctx, c.ID) })
	verb(mux, "act", func(ctx context.Context, c call) (any, error) {
		return a.Act(ctx, c.Act, c.Node, c.Target, *cmp.Or(c.Options, &exec.VerbOptions{}))
	})
	mux.HandleFunc("POST /v1/logs", a.serveLogs)
	verb(mux, "manage", func(ctx context.Context, c call) (any, error) { return empty{}, a.Manage(ctx, c.On) })
	verb(mux, "leave", func(ctx context.Context, _ call) (any, error) { return empty{}, a.Leave(ctx) })
	verb(mux, "join", func(ctx context.Context, c call) (any, error) { return empty{}, a.Join(ctx, c.To) })
	mux.HandleFunc("GET /v1/events", a.serveEvents)
	mux.Handle("GET /metrics", a.metricsHandler())
	return mux
}

func verb(mux *http.ServeMux, name string, do func(context.Context, call) (any, error)) {
	mux.HandleFunc("POST /v1/"+name, func(w http.ResponseWriter, r *http.Request) {
		var c call
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&c)
		if err != nil && !errors.Is(err, io.EOF) {
			answer(w, nil, &p2pnode.Error{Code: "bad-request", Text: "request not understood: " + err.Error(), Exit: p2pnode.ExitUsage})
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), callTime)
		defer cancel()
		v, err := do(ctx, c)
		answer(w, v, err)
	})
}

// answer writes v, or err as the error that people read.
func answer(w http.ResponseWriter, v any, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		e, ok := errors.AsType[*p2pnode.Error](err)
		if !ok {
			e = &p2pnode.Error{Code: "failed", Text: err.Error()}
		}
		w.WriteHeader(http.StatusUnprocessableEntity)
		v = p2pnode.ErrorDoc{Schema: p2pnode.Schema("error"), Error: e}
	}
	json.NewEncoder(w).Encode(v)
}

// serveReports writes a ReportsDoc one report at a time: all of a large store at once
// would be hundreds of megabytes.
func (a *API) serveReports(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"schema":%q,"reports":[`, p2pnode.Schema("reports"))
	comma := ""
	for r := range a.cfg.Reports.All() {
		raw, err := json.Marshal(r)
		if err != nil {
			continue // it was checked when it was taken in
		}
		if _, err := fmt.Fprintf(w, "%s%s", comma, raw); err != nil {
			return
		}
		comma = ","
	}
	fmt.Fprintln(w, "]}")
}

// serveEvents streams one JSON object per line.
func (a *API) serveEvents(w http.ResponseWriter, r *http.Request) {
	since, _ := strconv.ParseUint(r.URL.Query().Get("since"), 10, 64)
	follow := r.URL.Query().Get("follow") == "1"
	w.Header().Set("Content-Type", "application/jsonl")
	flush := http.NewResponseController(w)
	flush.Flush()
	enc := json.NewEncoder(w)
	a.Events(r.Context(), since, follow, func(e p2pnode.EventDoc) error {
		return errors.Join(enc.Encode(e), flush.Flush())
	})
}
