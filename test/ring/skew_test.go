package ring

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"p2pnode"
	"p2pnode/test/bin"
	"p2pnode/test/history"
	"p2pnode/test/host"
	"p2pnode/test/score"
)

// Two versions live side by side, as in every fleet that is brought up to date host
// by host: P2PNODE_OLD names the earlier revision (`make skew OLD=...`). Old and new
// take turns round the ring, so that every link joins the two; each repairs the
// other; then the old ones are replaced on their data folders, and the reports of
// before are still there.
func TestTwoVersions(t *testing.T) {
	revision := os.Getenv("P2PNODE_OLD")
	if revision == "" {
		t.Skip("no earlier revision is named: make skew OLD=REVISION")
	}
	const n = 6
	old := bin.At(t, revision)
	r := &Ring{Fleet: host.NewFleet(t, bin.P2pnode(t)), kills: map[*host.Host][]time.Time{}}
	for i := range n {
		r.grow(i, n, farFallback, old, r.Bin)
	}
	r.Settled(n)
	launchOne(r.Hosts[0])
	r.eachOther(r.Hosts[1], 3, 4)
	before := reportIDs(r.Hosts[1])
	if len(before) == 0 {
		t.Fatal("no reports were told")
	}
	for i := 0; i < n; i += 2 {
		h := r.Hosts[i]
		h.OK("shutdown")
		h.Wait()
		h.Bin = ""
		h.Start(wired(i, n)...)
		r.Must(20*time.Second, h.Name+" is back with the new version", func() bool { return listens(h) != "" && h.Sees(names[:n]...) })
		r.Settled(n)
	}
	r.Must(30*time.Second, "agents roam on", func() bool { return len(Agents(r.Hosts[2])) > 0 })
	r.eachOther(r.Hosts[5], 2, 1)
	r.Must(30*time.Second, "what was told before is on every host", func() bool {
		for _, h := range r.Hosts {
			have := reportIDs(h)
			for id := range before {
				if !have[id] {
					return false
				}
			}
		}
		return true
	})
	r.Judge(history.Options{EndView: true})
	score.Record(t, score.Figure{
		Row: "30", How: revision + " beside this one", Text: fmt.Sprintf("0 violations, %d reports carried over", len(before)),
		N: 4, Chance: "4 node processes killed, each repaired by the other version or across it, 3 hosts brought up to date", Where: "six hosts on loopback", Kept: !t.Failed(),
	})
}

// eachOther kills the node processes of the hosts named by their places, one after
// the other; agents on their neighbours bring them back.
func (r *Ring) eachOther(witness *host.Host, places ...int) {
	r.T.Helper()
	for _, i := range places {
		h := r.Hosts[i]
		r.Killing(h)
		life, was := Life(h), h.Role("node")
		h.Kill(p2pnode.SelfNode, p2pnode.ClassProcessDead, was)
		r.Back(h, was, 10*time.Second)
		story := r.Story(witness, h, life)
		r.T.Logf("%s: hops %d, trail %v, timing %+v", h.Name, story.Hops, story.Trail, story.Timing)
		r.ByAgentFrom(story, h)
		r.Settled(len(r.Hosts))
	}
}

func reportIDs(h *host.Host) map[string]bool {
	var d p2pnode.ReportsDoc
	h.JSON(&d, "reports")
	out := map[string]bool{}
	for _, r := range d.Reports {
		out[strings.Join([]string{r.Origin, string(r.Phase), r.Incident}, " ")] = true
	}
	return out
}
