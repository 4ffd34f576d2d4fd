package door

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"p2pnode"
)

func TestWithoutExecTheDoorSaysSo(t *testing.T) {
	f := newFleet(t)
	a, b := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleManager)
	a.serve()
	st, err := b.knocker().Status(t.Context(), a.addr, a.peer().ID)
	if err != nil || st.ExecAlive || st.NodeAlive || st.At.IsZero() {
		t.Fatalf("%+v, %v", st, err)
	}
	// Nothing says how to start an exec here.
	for _, target := range []string{"web", p2pnode.SelfExec} {
		ans, err := b.knocker().Recover(t.Context(), a.addr, a.peer().ID, p2pnode.RecoverRequest{Op: "1", Target: target, Expected: "x"})
		if err != nil || ans.Outcome != p2pnode.OutcomeRefused || ans.Reason != p2pnode.RefusedExecDead {
			t.Errorf("%s: %+v, %v", target, ans, err)
		}
	}
}

func TestPortTakenIsAnErrorForPeople(t *testing.T) {
	m := newFleet(t).member("a", p2pnode.RoleWorker)
	m.serve()
	err := Run(t.Context(), Config{Dir: m.dir, Listen: m.addr})
	var e *p2pnode.Error
	if !errors.As(err, &e) || e.Code != "port-taken" || e.Fix == "" {
		t.Errorf("%v", err)
	}
}

// greet is a handshake with any papers; the error is the server's word on them.
func greet(addr string, chain [][]byte, key ed25519.PrivateKey) (*tls.Conn, error) {
	raw, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	raw.SetDeadline(time.Now().Add(15 * time.Second))
	cfg := config(chain, key, func([][]byte) error { return nil })
	if chain == nil {
		cfg.Certificates = nil
	}
	conn := tls.Client(raw, cfg)
	if err := conn.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

func askWith(addr string, chain [][]byte, key ed25519.PrivateKey, req request) (a answer, err error) {
	conn, err := greet(addr, chain, key)
	if err != nil {
		return a, err
	}
	defer conn.Close()
	if err := writeFrame(conn, req); err != nil {
		return a, err
	}
	return a, readFrame(conn, &a)
}

func TestStrangersHearNothing(t *testing.T) {
	f, other := newFleet(t), newFleet(t)
	m, bad, alien := f.member("a", p2pnode.RoleWorker), f.member("bad", p2pnode.RoleManager), other.member("alien", p2pnode.RoleManager)
	m.trust(Trust{Revoked: p2pnode.Revocations{bad.peer().ID: {}}})
	s := m.serve()
	thief := newKey(t)
	for _, c := range []struct {
		name, reason string
		chain        [][]byte
		key          ed25519.PrivateKey
	}{
		{"no certificate", "handshake-bad", nil, nil},
		{"another cluster", "stranger", alien.chain, alien.key},
		{"another cluster's door", "stranger", alien.doorChain, alien.door},
		{"revoked", "stranger", bad.chain, bad.key},
		{"door of a revoked node", "stranger", bad.doorChain, bad.door},
		{"issued by a revoked manager", "stranger", [][]byte{}, nil},
		{"somebody's certificate, another's key", "handshake-bad", m.chain, thief},
		{"the root itself", "stranger", [][]byte{f.root}, f.key},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.chain != nil && c.key == nil {
				c.chain = f.issue(bad.chain, bad.key, thief, p2pnode.RoleWorker, "child")
				c.key = thief
			}
			was := s.count.all()[c.reason]
			a, err := askWith(m.addr, c.chain, c.key, request{Verb: verbStatus})
			if err == nil || a.Status != nil {
				t.Fatalf("answered %+v", a)
			}
			eventually(t, "it is counted as "+c.reason, func() bool { return s.count.all()[c.reason] > was })
		})
	}
	good := f.member("good", p2pnode.RoleWorker)
	if _, err := good.knocker().Status(t.Context(), m.addr, m.peer().ID); err != nil {
		t.Errorf("a member is refused: %v", err)
	}
}

// A caller believes only the door of the node that it asked for.
func TestCallerChecksTheDoor(t *testing.T) {
	f := newFleet(t)
	a, b := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleWorker)
	a.serve()
	if _, err := b.knocker().Status(t.Context(), a.addr, b.peer().ID); err == nil || !strings.Contains(err.Error(), "no certificate of this cluster") {
		t.Errorf("a's door passes for b's: %v", err)
	}
	k := NewKnocker(b.key, func() [][]byte { return b.chain }, func() []byte { return f.root }, func() p2pnode.Revocations { return p2pnode.Revocations{a.peer().ID: {}} }, nil)
	if _, err := k.Status(t.Context(), a.addr, a.peer().ID); err == nil {
		t.Error("the door of a revoked node is believed")
	}
	k = NewKnocker(b.key, func() [][]byte { return nil }, func() []byte { return nil }, nil, nil)
	if _, err := k.Status(t.Context(), a.addr, a.peer().ID); !errors.Is(err, errNoPapers) {
		t.Errorf("without papers: %v", err)
	}
}

func TestDenyTable(t *testing.T) {
	f := newFleet(t)
	m, worker, manager := f.member("a", p2pnode.RoleWorker), f.member("w", p2pnode.RoleWorker), f.member("m", p2pnode.RoleManager)
	s := m.serve()
	req := &p2pnode.RecoverRequest{Op: "1", Target: "web", Expected: "x"}
	for _, c := range []struct {
		who   string
		chain [][]byte
		key   ed25519.PrivateKey
		verb  verb
		ok    bool
	}{
		{"worker", worker.chain, worker.key, verbStatus, true},
		{"worker", worker.chain, worker.key, verbRecover, true},
		{"worker", worker.chain, worker.key, verbNotice, false},
		{"manager", manager.chain, manager.key, verbStatus, true},
		{"manager", manager.chain, manager.key, verbRecover, true},
		{"manager", manager.chain, manager.key, verbNotice, false},
		{"door", worker.doorChain, worker.door, verbStatus, true},
		{"door", worker.doorChain, worker.door, verbRecover, false},
		{"door", worker.doorChain, worker.door, verbNotice, true},
		{"manager", manager.chain, manager.key, "dance", false},
		{"door", worker.doorChain, worker.door, "", false},
	} {
		was := s.count.all()["denied"]
		a, err := askWith(m.addr, c.chain, c.key, request{Verb: c.verb, Recover: req, Life: p2pnode.NewLife(1)})
		if err != nil {
			t.Fatal(err)
		}
		if ok := a.Error == nil; ok != c.ok || (s.count.all()["denied"] == was) != c.ok {
			t.Errorf("%s asks to %q: %+v", c.who, c.verb, a)
		}
	}
	if a, err := askWith(m.addr, worker.chain, worker.key, request{Verb: verbRecover}); err != nil || a.Error == nil || a.Error.Code != "bad-request" {
		t.Errorf("recover of nothing: %+v, %v", a, err)
	}
}

func TestBadFramesEndTheConnection(t *testing.T) {
	f := newFleet(t)
	m := f.member("a", p2pnode.RoleWorker)
	s := m.serve()
	frame := func(n uint32, version byte, body string) []byte {
		return append(append(binary.BigEndian.AppendUint32(nil, n), version), body...)
	}
	for name, raw := range map[string][]byte{
		"oversized":     frame(maxFrame+1, wireVersion, "{}"),
		"four gigabyte": frame(1<<32-1, wireVersion, "{}"),
		"empty":         frame(0, wireVersion, ""),
		"version":       frame(3, 9, "{}"),
		"not json":      frame(3, wireVersion, "{{"),
	} {
		conn, err := greet(m.addr, m.chain, m.key)
		if err != nil {
			t.Fatal(err)
		}
		was := s.count.all()["bad-frame"]
		conn.Write(raw)
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%s: answered", name)
		}
		if s.count.all()["bad-frame"] != was+1 {
			t.Errorf("%s is not counted", name)
		}
		conn.Close()
	}
	if err := writeFrame(io.Discard, strings.Repeat("x", maxFrame)); !errors.Is(err, errFrame) {
		t.Errorf("an oversized frame is sent: %v", err)
	}
}

// 16 silent strangers do not keep a member out, and are gone after 2 seconds.
func TestHalfOpenConnectionsMakeRoom(t *testing.T) {
	f := newFleet(t)
	m, b := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleWorker)
	s := m.serve()
	for range maxConns {
		c, err := net.Dial("tcp", m.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	eventually(t, "all are in", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.conns) == maxConns })
	if _, err := b.knocker().Status(t.Context(), m.addr, m.peer().ID); err != nil {
		t.Errorf("a member is kept out: %v", err)
	}
	if n := s.count.all()["crowded-out"]; n != 1 {
		t.Errorf("%d crowded out", n)
	}
	eventually(t, "the others are too slow", func() bool { return s.count.all()["handshake-slow"] == maxConns-1 })
	eventually(t, "and gone", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.conns) == 0 })
	if all := s.count.all(); len(all) != 2 {
		t.Errorf("more is counted than one crowded out and the others: %v", all)
	}
}

// hello is the first message of a handshake.
func hello(t *testing.T) []byte {
	t.Helper()
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	go tls.Client(there, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13}).Handshake()
	buf := make([]byte, 16<<10)
	n, err := here.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return buf[:n]
}

// Who only connects does not keep out whose handshake has begun, and those whose
// handshake never goes on keep out nobody.
func TestStrangersCrowdOutTheirOwnKind(t *testing.T) {
	f := newFleet(t)
	m, b := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleWorker)
	s := m.serve()
	open := func(say []byte) net.Conn {
		c, err := net.Dial("tcp", m.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.Write(say)
		return c
	}
	greeted := func() (n int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, v := range s.conns {
			if v.greeted {
				n++
			}
		}
		return n
	}
	first := hello(t)
	begun := open(first)
	eventually(t, "its handshake has begun", func() bool { return greeted() == 1 })
	for range 3 * maxConns {
		open(nil)
	}
	eventually(t, "the silent ones crowd each other out", func() bool { return s.count.all()["crowded-out"] == 2*maxConns+1 })
	if greeted() != 1 {
		t.Error("silent strangers crowd out whose handshake has begun")
	}
	begun.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := begun.Read(make([]byte, 1)); err != nil {
		t.Errorf("it is not answered: %v", err)
	}
	for range 2 * maxConns {
		open(first)
	}
	eventually(t, "they are in", func() bool { return greeted() > maxConns/2 })
	if _, err := b.knocker().Status(t.Context(), m.addr, m.peer().ID); err != nil {
		t.Errorf("a member is kept out by those whose handshake never goes on: %v", err)
	}
}

// in opens n connections that prove themselves as m, each when the door knows the one
// before, and returns when it knows all.
func (s *server) in(m *member, addr string, n int) (out []*tls.Conn) {
	m.f.t.Helper()
	for range n {
		c, err := greet(addr, m.chain, m.key)
		if err != nil {
			m.f.t.Fatal(err)
		}
		m.f.t.Cleanup(func() { c.Close() })
		out = append(out, c)
		eventually(m.f.t, "it is proved", func() bool {
			s.mu.Lock()
			defer s.mu.Unlock()
			proved := 0
			for _, v := range s.conns {
				if v.node == m.peer().ID {
					proved++
				}
			}
			return proved == len(out)
		})
	}
	return out
}

func asked(c *tls.Conn) error {
	var a answer
	err := errors.Join(writeFrame(c, request{Verb: verbStatus}), readFrame(c, &a))
	if err == nil && a.Status == nil {
		err = errors.New("no status")
	}
	return err
}

func TestProvedMembersAreNotCrowdedOut(t *testing.T) {
	f := newFleet(t)
	m := f.member("a", p2pnode.RoleWorker)
	s := m.serve()
	var in []*tls.Conn
	for i := range maxConns / memberConns {
		in = append(in, s.in(f.member(fmt.Sprint("member ", i), p2pnode.RoleWorker), m.addr, memberConns)...)
	}
	if c, err := greet(m.addr, m.chain, m.key); err == nil {
		c.Close()
		t.Error("a seventeenth is let in")
	}
	if s.count.all()["full"] != 1 {
		t.Error("it is not counted")
	}
	for i, c := range in {
		if err := asked(c); err != nil {
			t.Errorf("the connection %d was thrown out: %v", i, err)
		}
	}
}

// One member's certificate takes every connection that the door has: another member is
// answered, and of the greedy one's only those go that are beyond its share.
func TestOneMemberDoesNotKeepOthersOut(t *testing.T) {
	f := newFleet(t)
	m, b, c := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleManager), f.member("c", p2pnode.RoleWorker)
	s := m.serve()
	in := s.in(b, m.addr, maxConns)
	for range 3 {
		if _, err := c.knocker().Status(t.Context(), m.addr, m.peer().ID); err != nil {
			t.Errorf("another member is kept out: %v", err)
		}
	}
	gone := uint64(0)
	for i, conn := range in {
		err := asked(conn)
		if err != nil {
			gone++
		}
		if err != nil && i < memberConns {
			t.Errorf("connection %d of %d: %v", i, len(in), err)
		}
	}
	if n := s.count.all()["crowded-out"]; n == 0 || n != gone {
		t.Errorf("%d were crowded out, %d are gone", n, gone)
	}
}

// Papers may come late, change, and be damaged.
func TestPapersFollowTheFiles(t *testing.T) {
	f := newFleet(t)
	m, b := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleWorker)
	late := &papers{dir: t.TempDir()}
	if _, _, err := late.current(); !errors.Is(err, errNoPapers) {
		t.Errorf("%v", err)
	}
	s := m.serve()
	ask := func() error { _, err := b.knocker().Status(t.Context(), m.addr, m.peer().ID); return err }
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	if err := p2pnode.WriteFile(trustPath(m.dir), []byte("{damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := ask(); err != nil {
		t.Errorf("a damaged file takes the last good papers away: %v", err)
	}
	m.trust(Trust{Revoked: p2pnode.Revocations{b.peer().ID: {}}})
	if ask() == nil {
		t.Error("a revocation is not followed")
	}
	eventually(t, "it is counted", func() bool { return s.count.all()["stranger"] > 0 })
	if err := p2pnode.WriteFile(trustPath(m.dir), make([]byte, maxTrust+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadTrust(m.dir); err == nil {
		t.Error("a file without bound is read")
	}
}

func TestKnockEndsWithItsContext(t *testing.T) {
	m := newFleet(t).member("a", p2pnode.RoleWorker)
	l, err := net.Listen("tcp", m.addr) // says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if _, err := m.knocker().Status(ctx, m.addr, m.peer().ID); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func FuzzReadFrame(f *testing.F) {
	var good bytes.Buffer
	writeFrame(&good, request{Verb: verbRecover, Recover: &p2pnode.RecoverRequest{Target: "web"}})
	f.Add(good.Bytes())
	f.Add([]byte{0, 0, 0, 3, 1, '{', '}'})
	f.Add([]byte{255, 255, 255, 255, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var req request
		if readFrame(bytes.NewReader(raw), &req) != nil {
			return
		}
		var out bytes.Buffer
		var again request
		if err := errors.Join(writeFrame(&out, req), readFrame(&out, &again)); err != nil || again.Verb != req.Verb {
			t.Fatalf("%+v does not come back: %v", req, err)
		}
	})
}

func BenchmarkKnock(b *testing.B) {
	f := newFleet(b)
	m, c := f.member("a", p2pnode.RoleWorker), f.member("b", p2pnode.RoleWorker)
	m.serve()
	k := c.knocker()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Status(b.Context(), m.addr, m.peer().ID); err != nil {
			b.Fatal(err)
		}
	}
}
