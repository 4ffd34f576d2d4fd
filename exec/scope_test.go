package exec

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/need"
)

func TestUnitOfAGroup(t *testing.T) {
	for group, want := range map[string][2]string{
		"/system.slice/p2pnode.service":                     {"system.slice", "p2pnode.service"},
		"/system.slice/p2pnode.service/init":                {"system.slice", "p2pnode.service"},
		"/a.slice/a-b.slice/p2pnode-x.service":              {"a.slice/a-b.slice", "p2pnode-x.service"},
		"/user.slice/user-0.slice/session-3.scope":          {"user.slice/user-0.slice", "session-3.scope"},
		"/user.slice/user-0.slice/user@0.service/app.slice": {"user.slice/user-0.slice", "user@0.service"},
		"/p2pnode.service":                                  {"", "p2pnode.service"},
		"/openrc.p2pnode":                                   {"", ""},
		"/docker/0123/p2pnode.service":                      {"", ""},
		"/system.slice":                                     {"system.slice", ""},
		"/":                                                 {"", ""},
	} {
		if slice, unit := unitOf(group); slice != want[0] || unit != want[1] {
			t.Errorf("%s is unit %q in slice %q, want %v", group, unit, slice, want)
		}
	}
}

// An exec that a guard starts is born in a group of ours; a unit, or a service that is a
// p2pnode by itself, is none.
func TestAboveOurGroups(t *testing.T) {
	for own, want := range map[string]string{
		"/system.slice/p2pnode.service":                             "/system.slice/p2pnode.service",
		"/system.slice/p2pnode.service/p2pnode-1.2.3/@door@1":       "/system.slice/p2pnode.service",
		"/system.slice/p2pnode-x.service":                           "/system.slice/p2pnode-x.service",
		"/system.slice/p2pnode-x.service/p2pnode-1.2.3/@door@1":     "/system.slice/p2pnode-x.service",
		"/system.slice/p2pnode-1.2.3-t.scope/inner@4":               "/system.slice/p2pnode-1.2.3-t.scope/inner@4",
		"/system.slice/p2pnode-1.2.3-t.scope/inner@4/p2pnode-4/x@1": "/system.slice/p2pnode-1.2.3-t.scope/inner@4",
		"/p2pnode-1.2.3/@node@7":                                    "",
		"/":                                                         "/",
	} {
		if got := aboveOurs(own); got != want {
			t.Errorf("%s is below %q, want %q", own, got, want)
		}
	}
}

// Which limits a host can hold is seen by its folders, whatever they are of.
func TestUnheldLimits(t *testing.T) {
	all := "cpuset cpu io memory hugetlb pids\n"
	v1 := map[string]string{"memory/cgroup.procs": "", "cpu/cgroup.procs": "", "pids/cgroup.procs": ""}
	hybrid := map[string]string{"memory/cgroup.procs": "", "cpu/cgroup.procs": "", "unified/cgroup.controllers": "hugetlb\n", "unified/cgroup.subtree_control": ""}
	v2 := map[string]string{"cgroup.controllers": all, "cgroup.subtree_control": "memory pids\n"}
	container := map[string]string{"cgroup.controllers": all, "cgroup.subtree_control": "\n"}
	for _, c := range []struct {
		host    string
		files   map[string]string
		systemd bool
		user    string
		want    string
	}{
		{"v1", v1, true, "", ""},
		{"v1 without systemd", v1, false, "", ""},
		{"hybrid, one controller is nowhere", hybrid, true, "", "pids"},
		{"the same, and the kernel counts a user's processes", hybrid, true, "www", ""},
		{"v2 alone, systemd gives a scope", v2, true, "", ""},
		{"v2 alone without systemd, two are handed on", v2, false, "", "cpu"},
		{"v2 in a container, nothing is handed on", container, false, "", "pids cpu memory_total"},
		{"v2 in a container with a systemd of its own", container, true, "", ""},
		{"no cgroups", nil, true, "www", "cpu memory_total"},
	} {
		t.Run(c.host, func(t *testing.T) {
			host := t.TempDir()
			if c.systemd {
				plantFile(t, filepath.Join(host, "run/systemd/system/x"), "")
			}
			for name, text := range c.files {
				plantFile(t, filepath.Join(host, "sys/fs/cgroup", name), text)
			}
			spec := p2pnode.ServiceSpec{User: c.user, Limits: p2pnode.Limits{PIDs: new(uint64(9)), CPU: new(uint64(500)), MemoryTotal: new(uint64(1 << 30)), NoFile: new(uint64(99))}}
			if got := strings.Join(Unheld(host, spec), " "); got != c.want {
				t.Errorf("not held: %q, want %q", got, c.want)
			}
			spec.Limits = p2pnode.Limits{CPU: new(p2pnode.Unlimited), Memory: new(uint64(1 << 30))}
			if got := Unheld(host, spec); len(got) != 0 {
				t.Errorf("%q want no group", got)
			}
		})
	}
}

func plantFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	bin.Write(t, path, []byte(text))
}

// A systemd that says no is told with its words, and not asked again at once; one that
// does not answer holds a start up for so long and no longer, and what asked it is gone.
func TestSystemdGivesNoScope(t *testing.T) {
	need.Root(t, "nobody else asks for a scope")
	for name, c := range map[string]struct{ script, want string }{
		"it says no":       {"echo no scope today >&2; exit 1", "no scope today"},
		"it is silent":     {"echo $$ >>PIDS; exec sleep 1000", "no scope within"},
		"it is elsewhere":  {"shift $(($# - 1)); exec $1", "is in"},
		"it is not there":  {"", "cannot be asked"},
		"it says too much": {"echo $$ >>PIDS; exec yes", "y"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			pids := filepath.Join(dir, "pids")
			if c.script != "" {
				plantFile(t, filepath.Join(dir, "systemd-run"), "#!/bin/sh\n"+strings.ReplaceAll(c.script, "PIDS", pids)+"\n")
				t.Setenv("PATH", dir+":/usr/bin:/bin")
			} else {
				t.Setenv("PATH", dir)
			}
			plantFile(t, filepath.Join(dir, "cgroup.controllers"), "cpu memory pids\n")
			s := openScopes(dir, "/system.slice/p2pnode.service", "tag")
			s.wait = time.Second
			ctx := t.Context()
			if name == "it is silent" { // one who asks and is called off says nothing of systemd
				off, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
				if _, err := s.hold(off, "memory"); !errors.Is(err, context.DeadlineExceeded) || s.refused != nil {
					t.Errorf("called off: %v, %v", err, s.refused)
				}
				cancel()
				os.Remove(pids)
			}
			began := time.Now()
			for range 2 {
				if dir, err := s.hold(ctx, "memory"); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("it gives %q: %v, want %q", dir, err, c.want)
				}
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("a start was held up for %v", took)
			}
			raw, _ := os.ReadFile(pids)
			asked := strings.Fields(string(raw))
			if strings.Contains(c.script, "PIDS") && len(asked) != 1 {
				t.Errorf("asked %d times", len(asked))
			}
			for _, pid := range asked {
				if _, err := os.Stat("/proc/" + pid); err == nil {
					t.Errorf("%s is left", pid)
				}
			}
			if _, err := s.hold(ctx, "io"); err != errNoGroup {
				t.Errorf("a controller that the host lacks: %v", err)
			}
			if len(s.folders()) != 0 {
				t.Errorf("scopes are known: %q", s.folders())
			}
			s.close()
		})
	}
}

// A service that is well is not ended for a life whose limits systemd lets nobody hold: by
// a restart, by a reload, or by a restart of what it requires. One that hangs is kept too.
func TestNothingIsEndedForWantOfAScope(t *testing.T) {
	need.Root(t, "limits of a whole service are wanted")
	dir := t.TempDir()
	asked := filepath.Join(dir, "asked")
	plantFile(t, filepath.Join(dir, "bin/systemd-run"), "#!/bin/sh\necho x >>"+asked+"\necho no scope today >&2\nexit 1\n")
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	base, db, bare := service("base", "part:sleep"), service("db", "part:sleep"), service("bare", "part:sleep")
	db.Limits.MemoryTotal, db.Requires = new(uint64(1<<30)), []string{"base"}
	hangs := filepath.Join(dir, "hangs")
	hung := service("hung", "part:confess", hangs)
	hung.Limits.MemoryTotal, hung.Watchdog, hung.Ready = new(uint64(1<<30)), time.Hour, p2pnode.ReadyNotify
	h := newHost(t, daemonConfig{Services: []p2pnode.ServiceSpec{base, db, bare, hung}})
	h.bounded("db", func(s p2pnode.ServiceStatus) bool { return s.State == p2pnode.StateUp })
	h.await("hung", p2pnode.StateUp)
	was := map[string]int{}
	for _, name := range []string{"base", "db", "bare", "hung"} {
		was[name] = h.await(name, p2pnode.StateUp).PID
	}
	plantFile(t, filepath.Join(h.dir, "cgroup/cgroup.controllers"), "memory\n")
	if err := os.MkdirAll(filepath.Join(h.dir, "cgroup/ours"), 0o755); err != nil {
		t.Fatal(err)
	}
	again := func(noSystemd bool) {
		kill9(t, h.cmd.Process.Pid)
		h.cmd.Wait()
		h.cfg.NoSystemd = noSystemd
		h.start()
	}
	again(true)
	h.await("hung", p2pnode.StateUp)
	asIs := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "no scope today") {
			t.Errorf("%s: %v", what, err)
		}
		time.Sleep(200 * time.Millisecond)
		for name, pid := range was {
			if s := h.status(name); s.PID != pid || !alive(pid) || name != "hung" && s.State != p2pnode.StateUp {
				t.Errorf("%s: %s was %d, is %+v", what, name, pid, s)
			}
		}
	}
	began := time.Now()
	for _, target := range []string{"db", "base", "all"} {
		_, err := h.c.Restart(t.Context(), target, VerbOptions{})
		asIs("a restart of "+target, err)
	}
	changed := bare
	changed.Limits.MemoryTotal = new(uint64(1 << 30))
	plantFile(t, filepath.Join(h.dir, "reload.json"), specsJSON(t, base, db, changed, hung))
	_, err := h.c.Reload(t.Context(), false)
	asIs("a reload", err)
	raw, _ := os.ReadFile(asked)
	if n, took := len(raw)/len("x\n"), time.Since(began); n == 0 || n > 1+int(took/scopeWait) {
		t.Errorf("systemd was asked %d times in %v", n, took)
	}
	if res, err := h.c.Restart(t.Context(), "bare", VerbOptions{}); err != nil || !res.OK {
		t.Errorf("one without limits: %+v, %v", res, err)
	}
	was["bare"] = h.status("bare").PID
	plantFile(t, hangs, "")
	eventually(t, "it is known to hang", func() bool {
		return h.status("hung").State == p2pnode.StateHung && strings.Contains(h.status("hung").Why, "no scope today")
	})
	asIs("it hangs", errors.New("no scope today"))
	plantFile(t, hangs+".well", "")
	h.await("hung", p2pnode.StateUp)
	again(false)
	plantFile(t, hangs, "")
	h.awaitNew("hung", was["hung"])
	if res, err := h.c.Restart(t.Context(), "db", VerbOptions{}); err != nil || !res.OK || h.status("db").PID == was["db"] {
		t.Errorf("where the limits are held again: %+v, %v", res, err)
	}
}

// What was kept for want of a scope and works again is not ended when there is one: it was
// stopped and goes on, or it hung and says that it does not, also while systemd is asked.
func TestWhatWorksAgainIsNotEndedForAScope(t *testing.T) {
	need.Root(t, "limits of a whole service are wanted")
	dir := t.TempDir()
	asking := filepath.Join(dir, "asking")
	plantFile(t, filepath.Join(dir, "bin/systemd-run"), "#!/bin/sh\n>"+asking+"; sleep 1; echo no scope today >&2; exit 1\n")
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	hangs := filepath.Join(dir, "hangs")
	frozen, hung := service("frozen", "part:sleep"), service("hung", "part:confess", hangs)
	frozen.StopGrace = 100 * time.Millisecond
	hung.Watchdog, hung.Ready = time.Hour, p2pnode.ReadyNotify
	services := []p2pnode.ServiceSpec{frozen, hung}
	for i := range services {
		services[i].Limits.MemoryTotal, services[i].Manual = new(uint64(1<<30)), true
	}
	h := newHost(t, daemonConfig{NoSystemd: true, Services: services})
	there := filepath.Join(h.dir, "cgroup/v1/memory/cgroup.procs") // who holds the limits
	plantFile(t, filepath.Join(h.dir, "cgroup/cgroup.controllers"), "memory\n")
	if err := os.MkdirAll(filepath.Join(h.dir, "cgroup/ours"), 0o755); err != nil {
		t.Fatal(err)
	}
	for round, whileAsked := range []bool{true, false} {
		plantFile(t, there, "")
		was := map[string]int{}
		for _, s := range services {
			if res, err := h.c.Start(t.Context(), s.Name, VerbOptions{}); err != nil || !res.OK {
				t.Fatalf("%+v, %v", res, err)
			}
			was[s.Name] = h.await(s.Name, p2pnode.StateUp).PID
		}
		if err := os.Remove(there); err != nil {
			t.Fatal(err)
		}
		for name, state := range map[string]p2pnode.ServiceState{"frozen": p2pnode.StateFrozen, "hung": p2pnode.StateHung} {
			os.Remove(asking)
			if name == "frozen" {
				need.Had(t, syscall.Kill(was[name], syscall.SIGSTOP))
			} else {
				plantFile(t, hangs, "")
			}
			kept := func() bool { s := h.status(name); return s.State == state && strings.Contains(s.Why, "no scope today") }
			if whileAsked {
				eventually(t, "systemd is asked for "+name, func() bool { _, err := os.Stat(asking); return err == nil })
			} else {
				eventually(t, name+" is kept", kept)
			}
			if name == "frozen" {
				need.Had(t, syscall.Kill(was[name], syscall.SIGCONT))
			} else {
				plantFile(t, hangs+".well", "")
			}
			h.await(name, p2pnode.StateUp)
			time.Sleep(scopeWait) // no answer of systemd holds any more
		}
		plantFile(t, there, "")
		time.Sleep(3 * blockedEvery / 2)
		for name, pid := range was {
			if s := h.status(name); s.PID != pid || s.State != p2pnode.StateUp {
				t.Errorf("round %d: %s was %d, is %+v", round, name, pid, s)
			}
		}
	}
}

// What is to be ended is looked at once more when its limits are to be had.
func TestTheLookBeforeTheEnd(t *testing.T) {
	cmd := osexec.Command("sleep", "1000")
	pid := stays(t, cmd)
	st, err := readStat(pid)
	if err != nil {
		t.Fatal(err)
	}
	p, ok := watchPID(pid, st.ticks)
	if !ok {
		t.Fatal("it is not there")
	}
	defer p.close()
	r, job := &runner{}, startJob{old: p, eff: effStart{class: p2pnode.ClassFrozen}}
	syscall.Kill(pid, syscall.SIGSTOP)
	eventually(t, "it is stopped", func() bool { return !r.worksAgain(job) })
	syscall.Kill(pid, syscall.SIGCONT)
	eventually(t, "it goes on", func() bool { return r.worksAgain(job) })
	syscall.Kill(pid, syscall.SIGKILL)
	eventually(t, "it is dead", func() bool { return !r.worksAgain(job) })
}

func specsJSON(t *testing.T, specs ...p2pnode.ServiceSpec) string {
	t.Helper()
	raw, err := json.Marshal(specs)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// What lies in a scope is a service's group like those beside exec.
func TestGroupsInScopes(t *testing.T) {
	root := t.TempDir()
	for _, dir := range []string{"p2pnode-tag-a.scope/web@3", "p2pnode-tag-b.scope/web@4", "p2pnode-other-c.scope/web@9", "p2pnode.service/p2pnode-tag/web@2", "p2pnode.service/p2pnode-tag/db@1", "p2pnode-tag-b.scope/hold"} {
		if err := os.MkdirAll(filepath.Join(root, "system.slice", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	g := (&cgroups{base: filepath.Join(root, "system.slice/p2pnode.service/p2pnode-tag"), scopes: openScopes(root, "/system.slice/p2pnode.service", "tag")}).of("web")
	var got []string
	for _, dir := range g.dirs() {
		got = append(got, strings.TrimPrefix(dir, root+"/system.slice/"))
	}
	if want := []string{"p2pnode.service/p2pnode-tag/web@2", "p2pnode-tag-a.scope/web@3", "p2pnode-tag-b.scope/web@4"}; !slices.Equal(got, want) {
		t.Errorf("groups are %q, want %q", got, want)
	}
	for n, want := range map[uint64]string{2: "p2pnode.service/p2pnode-tag", 4: "p2pnode-tag-b.scope", 5: "p2pnode.service/p2pnode-tag"} {
		if got := g.path(n); got != filepath.Join(root, "system.slice", want, fmt.Sprint("web@", n)) {
			t.Errorf("incarnation %d is in %s, want %s", n, got, want)
		}
	}
	g.remove()
	if left := g.dirs(); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}
