package exec

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/exec/logs"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sys/unix"
)

// afar is a log, and a manager on another host who reads it.
type afar struct {
	t    *testing.T
	log  *logs.Log
	fifo *os.File
	own  ed25519.PrivateKey
}

func newAfar(t *testing.T) *afar {
	dir := t.TempDir()
	l, err := logs.Open(logs.Config{RunDir: dir, LogDir: dir, Service: "web"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	path, err := l.Begin(p2pnode.Incarnation{Epoch: 1, N: 1}, os.Geteuid(), os.Getegid())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	_, own, _ := ed25519.GenerateKey(nil)
	return &afar{t, l, f, own}
}

func (a *afar) say(lines ...string) {
	for part := range slices.Chunk(lines, 200) {
		if _, err := a.fifo.WriteString(strings.Join(part, "\n") + "\n"); err != nil {
			a.t.Fatal(err)
		}
	}
	last := lines[len(lines)-1]
	eventually(a.t, "the log has it", func() bool {
		seen := false
		a.log.Query(a.t.Context(), 1, time.Time{}, false, func(_ time.Time, text string) bool { seen = text == last; return true })
		return seen
	})
}

// reader is one answer being read.
type reader struct {
	t     *testing.T
	key   *LogKey
	conn  *frameConn
	host  ed25519.PrivateKey
	order []byte
	over  chan struct{} // run has returned
}

func (a *afar) read(q LogRead) *reader {
	a.t.Helper()
	key, err := NewLogKey()
	if err != nil {
		a.t.Fatal(err)
	}
	order := []byte("the order")
	rd := &logReading{ss: &session{r: &runner{gone: make(chan struct{}), cfg: Config{Dir: a.t.TempDir()}}}, query: q, grep: regexp.MustCompile(q.Grep), sources: map[string]*logs.Log{"web": a.log}}
	if q.Lines == 0 {
		rd.since = time.Now()
	}
	if rd.seal, rd.head, err = sealLog(a.own, order, key.Public()); err != nil {
		a.t.Fatal(err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		a.t.Fatal(err)
	}
	ends := make([]*frameConn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		if err != nil {
			a.t.Fatal(err)
		}
		f.Close()
		ends[i] = newFrameConn(c.(*net.UnixConn))
	}
	ctx, cancel := context.WithCancel(a.t.Context())
	rd.ss.ctx, rd.ss.conn = ctx, ends[0]
	r := &reader{a.t, key, ends[1], a.own, order, make(chan struct{})}
	go func() { defer close(r.over); rd.run(1); ends[0].close() }()
	a.t.Cleanup(func() { cancel(); ends[1].close(); <-r.over; rd.ss.wg.Wait() })
	if _, err := key.Open(r.peer(), order, SealedLog{Head: rd.head}); err != nil {
		a.t.Fatal(err)
	}
	return r
}

func (r *reader) peer() peer.ID { return p2pnode.PeerID(r.host.Public().(ed25519.PublicKey)) }

func (r *reader) next() (LogBatch, bool) {
	m, _, err := r.conn.read()
	if err != nil || !m.More {
		return LogBatch{}, false
	}
	var s SealedLog
	if err := json.Unmarshal(m.Body, &s); err != nil {
		r.t.Fatal(err)
	}
	b, err := r.key.Open(r.peer(), r.order, s)
	if err != nil {
		r.t.Fatal(err)
	}
	return b, true
}

// all are the lines of an answer that ends by itself.
func (r *reader) all() (text []string) {
	r.t.Helper()
	for {
		b, ok := r.next()
		if !ok {
			r.t.Fatal("an answer without an end")
		}
		for _, l := range b.Lines {
			text = append(text, l.Text)
		}
		if b.Done {
			return text
		}
	}
}

// What another host is told is bounded and masked, and a pattern sees no more of it than
// its reader.
func TestReadingFromAfar(t *testing.T) {
	a := newAfar(t)
	a.say("one", "password=hunter2 here", "-----BEGIN PRIVATE KEY-----", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj", "q83vE0dw==", "-----END PRIVATE KEY-----", "last")
	whole := strings.Join(a.read(LogRead{Lines: 100}).all(), "\n")
	if !strings.Contains(whole, "one\n") || !strings.HasSuffix(whole, "\nlast") || !strings.Contains(whole, "[masked]") {
		t.Errorf("%q", whole)
	}
	for _, secret := range []string{"hunter2", "MIIEvQIBADAN", "q83vE0dw"} {
		if strings.Contains(whole, secret) {
			t.Errorf("%s crossed the network in %q", secret, whole)
		}
	}
	for pattern, want := range map[string]int{"hunter2": 0, `^password=(hunter|\[)`: 1, "^q83": 0, "one|last": 2} {
		if got := a.read(LogRead{Lines: 100, Grep: pattern}).all(); len(got) != want {
			t.Errorf("%s finds %q", pattern, got)
		}
	}
	if got := a.read(LogRead{Lines: 2}).all(); len(got) != 2 || got[1] != "last" || got[0] == "one" {
		t.Errorf("the newest two: %q", got)
	}
	if got := a.read(LogRead{}).all(); len(got) != 0 {
		t.Errorf("nothing of the past: %q", got)
	}
	var many []string
	for i := range 2 * maxReadBytes / 1000 {
		many = append(many, fmt.Sprintf("%04d %s", i, strings.Repeat("x y ", 250)))
	}
	a.say(many...)
	got := a.read(LogRead{Lines: len(many)}).all()
	size := 0
	for _, text := range got {
		size += len(text)
	}
	if size > maxReadBytes+200 || size < maxReadBytes/2 || !strings.Contains(got[0], "older lines are left out") || got[len(got)-1] != many[len(many)-1] {
		t.Errorf("%d lines of %d bytes, from %.80q", len(got), size, got[0])
	}
}

// Who follows a log gets what is written from then on, until he hangs up or is a manager
// no longer.
func TestFollowingFromAfar(t *testing.T) {
	a := newAfar(t)
	a.say("past")
	r := a.read(LogRead{Lines: 10, Follow: true, Grep: "past|now"})
	if b, ok := r.next(); !ok || len(b.Lines) != 1 || b.Lines[0].Text != "past" || b.Done {
		t.Fatalf("%+v, %v", b, ok)
	}
	a.say("not this", "now")
	if b, ok := r.next(); !ok || len(b.Lines) != 1 || b.Lines[0].Text != "now" {
		t.Fatalf("%+v, %v", b, ok)
	}
	r.conn.close()
	<-r.over
	// This host has no papers of a cluster (any more): so he is no manager here.
	r = a.read(LogRead{Follow: true})
	if b, ok := r.next(); !ok || !b.Done || b.Error == nil || b.Error.Exit != p2pnode.ExitNotPermitted {
		t.Errorf("%+v, %v", b, ok)
	}
}

// Nobody on the way can answer in the host's place, or leave out, repeat or move a piece.
func TestAnAnswerCannotBeForged(t *testing.T) {
	_, own, _ := ed25519.GenerateKey(nil)
	_, other, _ := ed25519.GenerateKey(nil)
	host, order := p2pnode.PeerID(own.Public().(ed25519.PublicKey)), []byte("the order")
	for name, c := range map[string]struct {
		by    ed25519.PrivateKey
		order string
		send  []int
		good  int // pieces that are opened
	}{
		"as it was sent":  {own, "the order", []int{0, 1, 2}, 3},
		"another host's":  {other, "the order", nil, -1},
		"another order's": {own, "an order", nil, -1},
		"one left out":    {own, "the order", []int{0, 2}, 1},
		"one again":       {own, "the order", []int{0, 0}, 1},
		"moved":           {own, "the order", []int{1, 0}, 0},
	} {
		key, err := NewLogKey()
		if err != nil {
			t.Fatal(err)
		}
		seal, head, err := sealLog(c.by, []byte(c.order), key.Public())
		if err != nil {
			t.Fatal(err)
		}
		_, err = key.Open(host, order, SealedLog{Head: head})
		if (err != nil) != (c.good < 0) {
			t.Errorf("%s: the head: %v", name, err)
		}
		var pieces [][]byte
		for i := range 3 {
			raw, err := seal.batch(LogBatch{Lines: []LogLine{{Text: fmt.Sprint(i)}}})
			if err != nil {
				t.Fatal(err)
			}
			pieces = append(pieces, raw)
		}
		opened := 0
		for _, i := range c.send {
			if _, err := key.Open(host, order, SealedLog{Sealed: pieces[i]}); err != nil {
				break
			}
			opened++
		}
		if c.good >= 0 && opened != c.good {
			t.Errorf("%s: %d pieces were believed, want %d", name, opened, c.good)
		}
	}
}

// So many read at once and no more, and one after the other so many in a time.
func TestReadersAreCounted(t *testing.T) {
	var rs reads
	now := time.Now()
	for range maxReads {
		if err := rs.enter(now); err != nil {
			t.Fatal(err)
		}
	}
	if rs.enter(now) == nil {
		t.Error("one too many at once")
	}
	rs.leave()
	began := 0
	for rs.enter(now) == nil {
		rs.leave()
		if began++; began > readsBurst {
			t.Fatal("endlessly many")
		}
	}
	if began != readsBurst-maxReads {
		t.Errorf("%d after the first", began)
	}
	if rs.enter(now.Add(readsEvery)) != nil {
		t.Error("none later either")
	}
}
