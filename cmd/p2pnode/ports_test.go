package main

import (
	"net"
	"os"
	"strconv"
	"strings"
	"testing"

	"p2pnode"
	"p2pnode/test/need"
)

func TestPortsAreKept(t *testing.T) {
	dir := t.TempDir()
	first, notes, err := choosePorts(dir, "127.0.0.1:0", "", false)
	if err != nil || len(notes) == 0 {
		t.Fatal(err, notes)
	}
	_, port := keptAddr(first.Listen)
	_, door := keptAddr(first.Door)
	if port == 0 || port >= ephemeralLow() || door != port+1 {
		t.Errorf("chose %+v; ephemeral ports begin at %d", first, ephemeralLow())
	}
	again, notes, err := choosePorts(dir, "127.0.0.1:0", "", false)
	if err != nil || again != first || len(notes) != 0 {
		t.Errorf("second start: %+v %v %v, want %+v", again, notes, err, first)
	}
}

func TestSecondStartMovesNoPorts(t *testing.T) {
	dir := t.TempDir()
	kept, _, err := choosePorts(dir, "127.0.0.1:0", "", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := choosePorts(dir, "127.0.0.1:7999", "127.0.0.1:7998", true); err != nil {
		t.Fatal(err)
	}
	if now := loadPorts(dir); now != kept {
		t.Errorf("a start beside a living daemon wrote down %+v, was %+v", now, kept)
	}
}

func TestNoSuchAddressHere(t *testing.T) {
	_, _, err := choosePorts(t.TempDir(), "192.0.2.1:7744", "", false)
	if p2pnode.ExitCode(err) != p2pnode.ExitFailed || strings.Contains(err.Error(), "end that program") {
		t.Errorf("%v", err)
	}
}

func TestPortTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, _, err = choosePorts(t.TempDir(), ln.Addr().String(), "", false)
	if p2pnode.ExitCode(err) != p2pnode.ExitFailed || !strings.Contains(err.Error(), "is taken") || !strings.Contains(err.Error(), "127.0.0.1:0") {
		t.Errorf("taken port: %v", err)
	}
	// The roles of this very host may hold it.
	if _, _, err = choosePorts(t.TempDir(), ln.Addr().String(), "", true); err != nil {
		t.Errorf("own port: %v", err)
	}
}

func TestDoorWish(t *testing.T) {
	low, err := pickPort("127.0.0.1", 2)
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(low+1))
	need.Had(t, err)
	defer taken.Close()
	dir := t.TempDir()
	p, notes, err := choosePorts(dir, "127.0.0.1:"+strconv.Itoa(low), "", false)
	if err != nil {
		t.Fatal(err)
	}
	if _, door := keptAddr(p.Door); door == low+1 || door == 0 || !strings.Contains(strings.Join(notes, " "), "for the door") {
		t.Errorf("door %s, notes %v", p.Door, notes)
	}
	if again, _, err := choosePorts(dir, "127.0.0.1:"+strconv.Itoa(low), "", false); err != nil || again != p {
		t.Errorf("door moved from %s to %s (%v)", p.Door, again.Door, err)
	}
}

func TestBadAddresses(t *testing.T) {
	for _, bad := range []string{"7744", "host:port", "127.0.0.1:70000", "", "no.such.host.invalid:1"} {
		if _, _, err := choosePorts(t.TempDir(), bad, "", false); p2pnode.ExitCode(err) != p2pnode.ExitUsage {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, _, err := choosePorts(t.TempDir(), "127.0.0.1:7744", "127.0.0.1:7744", true); p2pnode.ExitCode(err) != p2pnode.ExitUsage {
		t.Errorf("one port for both: %v", err)
	}
}

func TestDamagedPortsFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/ports.json", []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if p, _, err := choosePorts(dir, "127.0.0.1:0", "", false); err != nil || p.Listen == "" {
		t.Errorf("%+v %v", p, err)
	}
}
