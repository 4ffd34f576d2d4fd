package exec

import (
	"context"
	"os"
	osexec "os/exec"
	"strconv"
	"testing"
	"time"
)

// A killed exec's lock outlives it by a moment: who comes then waits for it, and is
// not told that a dead process works here. A living one's is not waited for.
func TestTheLockOfADyingExecIsWaitedFor(t *testing.T) {
	dead := osexec.Command("/bin/true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		holder int
		ok     bool
	}{{"dying", dead.Process.Pid, true}, {"living", os.Getpid(), false}} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{Dir: t.TempDir(), Supervised: "no"}
			if err := os.MkdirAll(runDir(cfg.Dir), 0o700); err != nil {
				t.Fatal(err)
			}
			held, err := openLock(execLockPath(cfg.Dir))
			if err != nil {
				t.Fatal(err)
			}
			if ok, err := takeLock(held); !ok || err != nil {
				t.Fatal(ok, err)
			}
			held.WriteString(strconv.Itoa(c.holder) + "\n")
			time.AfterFunc(50*time.Millisecond, func() { held.Close() })
			lock, err := claimFolder(context.Background(), &cfg, nil)
			if (err == nil) != c.ok || !c.ok && asError(err).Code != "already-running" {
				t.Errorf("%v", err)
			}
			if lock != nil {
				lock.Close()
			}
		})
	}
}
