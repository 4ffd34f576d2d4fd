package exec

import (
	"encoding/json"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// Files of exec's folder are of another boot, another pid namespace, another service,
// torn, or no files at all, while the service runs and while a stranger has the number
// that is written there. There is one copy afterwards, the stranger lives, and exec
// neither ends nor is in doubt a second time.
func TestForeignFilesAreRecognised(t *testing.T) {
	type scene struct {
		dir      string
		rec      record
		stranger being
	}
	put := func(s scene, rec record) error {
		raw, err := json.Marshal(rec)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(stateDir(s.dir), "services", "web.json"), raw, 0o600)
	}
	pointing := func(change func(*record)) func(scene) error {
		return func(s scene) error {
			s.rec.PID, s.rec.Ticks = s.stranger.pid, s.stranger.ticks
			change(&s.rec)
			return put(s, s.rec)
		}
	}
	write := func(text string, name ...string) func(scene) error {
		return func(s scene) error {
			return os.WriteFile(filepath.Join(append([]string{s.dir}, name...)...), []byte(text), 0o600)
		}
	}
	state := filepath.Base(stateDir(""))
	run := filepath.Base(runDir(""))
	for _, c := range []struct {
		name    string
		do      func(scene) error
		another bool // the process is replaced: its record says that it is dead
	}{
		{"record of another boot", pointing(func(r *record) { r.BootID = "another" }), false},
		{"record of another pid namespace", pointing(func(r *record) { r.PidNS = "pid:[1]" }), false},
		{"record of another epoch", pointing(func(r *record) { r.Inc.Epoch++ }), false},
		{"record of another service", pointing(func(r *record) { r.Service = "api" }), false},
		{"record of an earlier process", pointing(func(r *record) { r.Ticks-- }), true},
		{"record of a life to come, another boot", pointing(func(r *record) { r.BootID, r.Inc.N, r.Starting = "another", r.Inc.N+5, true }), false},
		{"record without a number", pointing(func(r *record) { r.PID, r.Ticks = 0, 0 }), false},
		{"record of a negative number", pointing(func(r *record) { r.PID = -r.PID }), false},
		{"record empty", write("", state, "services", "web.json"), false},
		{"record of another type", write(`{"service":"web","pid":"one"}`, state, "services", "web.json"), false},
		{"record a list", write(`[1,2]`, state, "services", "web.json"), false},
		{"record a folder", func(s scene) error {
			path := filepath.Join(stateDir(s.dir), "services", "web.json")
			os.Remove(path)
			return os.Mkdir(path, 0o700)
		}, false},
		{"records of nobody", func(s scene) error {
			for _, name := range []string{"gone.json", "..json", "a b.json", ".json"} {
				s.rec.Service, s.rec.PID, s.rec.Ticks = name[:len(name)-len(".json")], s.stranger.pid, s.stranger.ticks-1
				raw, _ := json.Marshal(s.rec)
				if err := os.WriteFile(filepath.Join(stateDir(s.dir), "services", name), raw, 0o600); err != nil {
					return err
				}
			}
			return nil
		}, false},
		{"intent torn", write(`{"stopped":{"we`, state, "desired.json"), false},
		{"intent empty", write("", state, "desired.json"), false},
		{"exec's lock names a stranger", write("1\n", run, "exec.lock"), false},
		{"exec's lock is torn", write("\x00\xff", run, "exec.lock"), false},
		{"life torn", write(`{"incarn`, run, "node.life"), false},
		{"the service's lock is gone", func(s scene) error {
			locks, err := filepath.Glob(filepath.Join(runDir(s.dir), "web.*.lock"))
			if err != nil || len(locks) != 1 {
				t.Errorf("locks %q, %v", locks, err)
			}
			return os.Remove(locks[0])
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}, NoCgroups: true})
			stranger := osexec.Command("/bin/sleep", "1000")
			stranger.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := stranger.Start(); err != nil {
				t.Fatal(err)
			}
			defer stranger.Wait()
			defer stranger.Process.Kill()
			was := h.await("web", p2pnode.StateUp)
			h.withoutExec(func() {
				st, err := readStat(stranger.Process.Pid)
				if err != nil {
					t.Fatal(err)
				}
				s, err := openState(stateDir(h.dir), runDir(h.dir))
				if err != nil {
					t.Fatal(err)
				}
				rec, ok := s.get("web")
				if !ok {
					t.Fatal("no record")
				}
				if err := c.do(scene{h.dir, rec, being{st.pid, st.ticks}}); err != nil {
					t.Fatal(err)
				}
			})
			now := h.await("web", p2pnode.StateUp)
			if replaced := now.PID != was.PID; replaced != c.another || alive(was.PID) == c.another {
				t.Errorf("%+v, was %+v, which lives: %v", now, was, alive(was.PID))
			}
			pid := h.cmd.Process.Pid
			h.killExec() // what it made of it is sound
			if again := h.await("web", p2pnode.StateUp); again.PID != now.PID {
				t.Errorf("%+v, was %+v", again, now)
			}
			if n := h.programs(); n != 1 {
				t.Errorf("%d copies", n)
			}
			if alive(pid) || !alive(stranger.Process.Pid) {
				t.Errorf("the old exec lives: %v, the stranger: %v", alive(pid), alive(stranger.Process.Pid))
			}
		})
	}
}

// Whatever a record's file holds, it is the service's own of this epoch or none.
func FuzzRecord(f *testing.F) {
	dir := f.TempDir()
	s, err := openState(filepath.Join(dir, "exec"), filepath.Join(dir, "run"))
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(record{Service: "web", Inc: p2pnode.Incarnation{Epoch: s.epoch, N: 3}, PID: 7, Ticks: 9, Started: time.Unix(1, 0)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"service":"web","incarnation":"1-1","pid":-1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := s.recordPath("web")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, ok := s.get("web"); ok && (r.Service != "web" || r.Inc.Epoch != s.epoch) {
			t.Errorf("%+v", r)
		}
		s.get("api")
	})
}

// What exec reads and writes may be a FIFO by now: nobody waits for its other end, and
// the rest goes on.
func TestAFIFOInTheDataFolderHangsNobody(t *testing.T) {
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{service("web", "part:sleep")}, Guard: true})
	was := h.await("web", p2pnode.StateUp)
	h.withoutExec(func() {
		state := stateDir(h.dir)
		for _, path := range []string{
			filepath.Join(state, "services", "web.json"), filepath.Join(state, "desired.json"), filepath.Join(state, "epoch.json"),
			guardPath(h.dir), lifePath(h.dir), AuditPath(h.dir), upgradePath(h.dir),
		} {
			os.Remove(path)
			if err := unix.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	})
	if now := h.await("web", p2pnode.StateUp); now.PID != was.PID {
		t.Errorf("the service lives as %d, not as %d", now.PID, was.PID)
	}
	if err := h.c.Observe(t.Context(), "web", false); err != nil { // is audited and written down
		t.Error(err)
	}
	kill9(t, was.PID)
	h.awaitNew("web", was.PID)
	if n := h.programs(); n != 1 {
		t.Errorf("%d copies", n)
	}
	if st, err := h.c.Status(t.Context()); err != nil || !strings.Contains(fmt.Sprint(st.Degraded), "no regular file") {
		t.Errorf("degraded is %v, %v", st.Degraded, err)
	}
}
