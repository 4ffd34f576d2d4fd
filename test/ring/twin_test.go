package ring

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/history"
)

// The disk of a host is cloned, and the clone joins: two processes with one key.
// Everybody sees it, both of them too, somebody tells it, and no agent touches
// either: whose node process it is that died nobody could say. Its own exec can.
func TestClonedDisk(t *testing.T) {
	r := New(t, 4, "grace: {agent: 60s}\n")
	launchOne(r.Hosts[0])
	original := r.Hosts[2]
	twin := r.Add("twin").Configure("services: {}\n")
	if out, err := exec.Command("cp", "-a", original.Dir+"/.", twin.Dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	os.Remove(filepath.Join(twin.Dir, "ports.json"))
	original.Fault("", p2pnode.ClassDuplicateIdentity, 0)
	twin.Start(append(wired(2, 4), "--name", original.Name, "--join", listens(r.Hosts[1]))...)
	for _, h := range append(r.Hosts[:4:4], twin) {
		r.Must(30*time.Second, h.Name+" sees that there are two", func() bool {
			return h.Nodes()[original.Name].Verdict == p2pnode.DuplicateIdentity
		})
	}
	for _, h := range append(r.Hosts[:4:4], twin) {
		r.Must(30*time.Second, h.Name+" knows the story", func() bool {
			_, ok := h.Incident(original.Name, "", func(i p2pnode.Incident) bool {
				return i.Kind == p2pnode.KindHost && i.Class == p2pnode.ClassDuplicateIdentity && i.State == p2pnode.IncidentOpen
			})
			return ok
		})
	}
	old := original.Role("node")
	original.Kill(p2pnode.SelfNode, p2pnode.ClassProcessDead, old)
	next := r.Back(original, old, 10*time.Second)
	r.Must(20*time.Second, "its own exec says that it did it", func() bool {
		story, ok := r.Hosts[0].Incident(original.Name, "", func(i p2pnode.Incident) bool {
			return i.Kind == p2pnode.KindNode && !i.RecoveredAt.IsZero()
		})
		return ok && story.By.Kind == p2pnode.ByExec
	})
	if now := original.Role("node"); now != next {
		t.Errorf("restarted more than once: %d, then %d", next, now)
	}
	twin.Gone()
	os.Remove(r.HistoryFile(twin.Name)) // the checker takes what has one name for one host
	r.Judge(history.Options{})
}
