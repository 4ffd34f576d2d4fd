package sim

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/overlay/papers"
)

// Every certificate of the fleet ends, and the root's key is elsewhere. Privilege is
// gone, at every node; members see each other, agents go their rounds, and a service and
// a node process are brought back as before.
func TestEveryCertificateEnds(t *testing.T) {
	Run(t, Options{Seed: 43, Latency: time.Millisecond, Grace: agentsOnly}, func(w *World) {
		boss := w.add()
		key, err := p2pnode.LoadOrCreateKey(filepath.Join(boss.dir, "node.key"))
		if err == nil {
			_, err = papers.Found(boss.dir, key, boss.name, time.Now().Add(-365*24*time.Hour+10*time.Minute))
		}
		if err == nil {
			err = os.Remove(filepath.Join(boss.dir, "root.key"))
		}
		if err != nil {
			t.Error(err)
			return
		}
		boss.boot()
		w.Must(10*time.Second, "it manages", func() bool {
			n := boss.running()
			return n != nil && n.API().Manage(w.ctx, true) == nil
		})
		if _, err := boss.running().API().Open(w.ctx, 5*time.Minute); err != nil {
			t.Error(err)
			return
		}
		for range 4 {
			m := w.add()
			m.join = []string{boss.address()}
			m.boot()
		}
		w.Must(time.Minute, "one view", w.OneView)
		w.launch(boss, 15*time.Second)
		time.Sleep(15 * time.Minute)
		if _, err := boss.running().API().Launch(w.ctx, 15*time.Second, 0.99, nil); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
			t.Errorf("a certificate that has ended launches agents: %v", err)
		}
		if err := boss.running().API().Promote(w.ctx, w.Machines[1].name); p2pnode.ExitCode(err) != p2pnode.ExitNotPermitted {
			t.Errorf("a certificate that has ended promotes: %v", err)
		}
		one, other := w.Machines[2], w.Machines[3]
		w.Fault(one, "web", p2pnode.ClassSignalled)
		one.KillService()
		w.Must(time.Minute, "an agent brings the service back", func() bool {
			i, ok := boss.Incident(one, "web")
			return verifiedBy(p2pnode.ByAgent, i, ok)
		})
		w.killNode(other)
		w.Must(time.Minute, "an agent brought the node process back", func() bool {
			i, ok := boss.Incident(other, "")
			return verifiedBy(p2pnode.ByAgent, i, ok)
		})
		w.Must(time.Minute, "one view again", w.OneView)
	})
}
