package exec

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"p2pnode"
)

// What a service misses is looked for several times a second: whatever it was, the
// service is up soon after it is there, and was never called crashing meanwhile.
func TestWhatIsMissingIsSeenToReturn(t *testing.T) {
	script := []byte("#!/bin/sh\nexec sleep 100000\n")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var specs []p2pnode.ServiceSpec
	returns := map[string]func(){}
	add := func(name string, cwd, program string, back func()) {
		specs = append(specs, p2pnode.ServiceSpec{Name: name, Command: []string{program}, Cwd: cwd, StopGrace: time.Second})
		returns[name] = back
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }

	add("absent", "", at("absent"), func() {
		must(os.WriteFile(at("absent.new"), script, 0o755))
		must(os.Rename(at("absent.new"), at("absent")))
	})

	must(os.WriteFile(at("plain"), script, 0o644))
	add("chmod", "", at("plain"), func() { must(os.Chmod(at("plain"), 0o755)) })

	must(os.WriteFile(at("there"), script, 0o755))
	add("cwd", at("folder"), at("there"), func() { must(os.Mkdir(at("folder"), 0o755)) })

	// A file system that is not mounted is an empty folder.
	must(os.Mkdir(at("mnt"), 0o755))
	must(os.Mkdir(at("disk"), 0o755))
	must(os.WriteFile(at("disk/web"), script, 0o755))
	add("mount", "", at("mnt/web"), func() { must(os.Remove(at("mnt"))); must(os.Rename(at("disk"), at("mnt"))) })

	// Half of it is there, and whoever copies holds it open: it cannot run yet.
	self, err := os.ReadFile("/bin/sleep")
	must(err)
	half, err := os.OpenFile(at("half"), os.O_CREATE|os.O_WRONLY, 0o755)
	must(err)
	defer half.Close()
	_, err = half.Write(self[:64])
	must(err)
	add("copied", "", at("half"), func() {
		_, err := half.Write(self[64:])
		must(err)
		must(half.Close())
	})
	specs[len(specs)-1].Command = append(specs[len(specs)-1].Command, "100000")

	if os.Geteuid() == 0 {
		// The real thing: a file system of its own, and a folder of elsewhere.
		must(os.Mkdir(at("tmpfs"), 0o755))
		t.Cleanup(func() { syscall.Unmount(at("tmpfs"), syscall.MNT_DETACH) })
		add("tmpfs", at("tmpfs/data"), at("there"), func() {
			must(syscall.Mount("tmpfs", at("tmpfs"), "tmpfs", 0, "size=1m"))
			must(os.Mkdir(at("tmpfs/data"), 0o755))
		})
		must(os.Mkdir(at("bound"), 0o755))
		must(os.Mkdir(at("elsewhere"), 0o755))
		must(os.WriteFile(at("elsewhere/web"), script, 0o755))
		t.Cleanup(func() { syscall.Unmount(at("bound"), syscall.MNT_DETACH) })
		add("bind", "", at("bound/web"), func() { must(syscall.Mount(at("elsewhere"), at("bound"), "", syscall.MS_BIND, "")) })

		// Its user may not enter the folder: no look of exec's sees that, only trying does.
		must(os.Chmod(filepath.Dir(dir), 0o711))
		must(os.Chmod(dir, 0o711))
		must(os.Mkdir(at("closed"), 0o700))
		must(os.WriteFile(at("closed/web"), script, 0o755))
		add("closed", "", at("closed/web"), func() { must(os.Chmod(at("closed"), 0o711)) })
		specs[len(specs)-1].User = "nobody"
	}

	h := newHost(t, daemonConfig{Services: specs})
	for name := range returns {
		if s := h.await(name, p2pnode.StateMissing); s.Why == "" || s.NextTry.IsZero() {
			t.Errorf("%s: %+v", name, s)
		}
	}
	var fast []time.Duration
	for name, back := range returns {
		back()
		began := time.Now()
		if s := h.await(name, p2pnode.StateUp); s.Restarts != 0 {
			t.Errorf("%s is up after %d restarts", name, s.Restarts)
		}
		took := time.Since(began)
		t.Logf("%s: there -> up: %v", name, took.Round(time.Millisecond))
		if name == "closed" { // tried, not seen
			continue
		}
		if fast = append(fast, took); took > soonThere {
			t.Errorf("%s was there for %v until it was up", name, took)
		}
	}
	slices.Sort(fast)
	t.Logf("p50 %v of %d", fast[len(fast)/2].Round(time.Millisecond), len(fast))
}

// soonThere is what a look every 150 ms and a start may take on a busy machine: by far
// less than what nobody looks at, which is tried after worldUnseen.
const soonThere = worldUnseen / 2
