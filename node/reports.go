package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"golang.org/x/sync/errgroup"

	"p2pnode"
	"p2pnode/store"
)

const (
	lookEvery  = 10 * time.Second
	askTimeout = 10 * time.Second
	retryFirst = 50 * time.Millisecond // while reports are known to be missing
	retryMost  = 15 * time.Second
)

// runBoth runs two parts of one thing and ends both when one ends.
func runBoth(ctx context.Context, a, b func(context.Context) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a(ctx) })
	group.Go(func() error { return b(ctx) })
	return group.Wait()
}

// keepReports runs the store, which needs the cluster's keys. It ends when the last
// report of the agents is in it.
func (n *Node) keepReports(ctx context.Context) error {
	if !n.awaitAdmission(ctx) {
		return nil
	}
	cluster, _ := n.overlay.Cluster()
	s, err := store.New(store.Config{
		Path: filepath.Join(n.cfg.Dir, "store.db"), Key: n.overlay.Key(), Cluster: cluster.ID, Chain: n.chain, Certified: n.certified,
		SealTo: cluster.ReaderPublic, Stored: n.onStored, Log: n.cfg.Log, Metrics: n.cfg.Metrics,
	})
	if err != nil {
		return err
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	go func() {
		<-n.outbox.ended
		end()
	}()
	n.reports.set(s)
	n.giveReaders()
	return s.Run(life)
}

// certified says whose a chain of certificates is; doors report nothing.
func (n *Node) certified(chain [][]byte) (peer.ID, error) {
	c, err := p2pnode.VerifyChain(n.root(), chain, nil)
	if err == nil && c.Role == p2pnode.RoleDoor {
		err = p2pnode.ErrCertificate
	}
	return c.ID, err
}

// giveReaders tells the store what excerpts are sealed to and what opens them here.
func (n *Node) giveReaders() {
	s, ok := n.reports.get()
	if !ok {
		return
	}
	keys := n.overlay.Readers()
	if err := errors.Join(s.SetSeal(keys.Seal), s.SetReaders(keys.Private...)); err != nil {
		n.cfg.Log.Error().Err(err).Msg("reader key unusable")
	}
	s.SetSealed("")
	if by := n.overlay.DemotedBy(); by != "" {
		s.SetSealed("only managers read excerpts; this node was demoted by " + by)
	}
}

// onStored writes down each report that is new here.
func (n *Node) onStored(r p2pnode.Report) {
	target := n.nameOfText(r.Node)
	id := fmt.Sprintf("%s/%s/%d", r.Origin, r.Epoch, r.Seq)
	n.cfg.History.Record(p2pnode.HistoryEvent{
		Event: p2pnode.HistReport, Report: id, Phase: r.Phase, Incident: r.Incident, Target: target,
		Service: r.Service, Class: r.Class, By: r.By, Old: r.Old, New: r.New, Agent: r.Agent,
	})
	r.Excerpt = nil
	n.agents.OnReport(r)
	if r.Origin == n.overlay.ID().String() {
		n.repairs.Observe(r)
	}
	n.events.Add(time.Now(), target, "report", r)
	if i, news := n.stories.add(r, n.nameOfText); news {
		n.events.Add(time.Now(), i.Node, "incident", i)
		n.notify.Incident(i)
	}
}

func (n *Node) nameOfText(id string) string {
	if p, err := peer.Decode(id); err == nil {
		return n.nameOf(p)
	}
	return id
}

// report takes an agent's report; it never blocks.
func (n *Node) report(r p2pnode.Report) {
	if !plantReportDropped {
		n.outbox.add(r)
	}
}

func (n *Node) reported(incident string, phase p2pnode.Phase) bool {
	if n.outbox.has(incident, phase) {
		return true
	}
	s, ok := n.reports.get()
	return ok && s.Reported(incident, phase)
}

func (n *Node) runOutbox(ctx context.Context) error { return n.outbox.run(ctx, n.reports) }

func (n *Node) runAgents(ctx context.Context) error {
	defer n.outbox.close()
	return n.agents.Run(ctx)
}

func (n *Node) onHead(r p2pnode.Record) {
	if s, ok := n.reports.get(); ok && r.Signer != n.overlay.ID() {
		s.OnRecord(r)
	}
}

var errStarting = errors.New("the store is not open yet")

func (n *Node) serveStore(ctx context.Context, from peer.ID, req []byte) ([]byte, error) {
	s, ok := n.reports.get()
	if !ok {
		return nil, errStarting
	}
	return s.HandleBulk(ctx, from, req)
}

// spreadReports tells others what is new here and fetches what is new there: at
// once where a head names reports that are missing, and now and then from anybody.
func (n *Node) spreadReports(ctx context.Context) error {
	s, ok := n.reports.wait(ctx)
	if !ok {
		return nil
	}
	for _, r := range n.overlay.Records(p2pnode.DomainHead) {
		n.onHead(r)
	}
	for _, r := range untold(s.All()) {
		n.agents.OnReport(r)
	}
	if plantNoFetch {
		return n.publishHeads(ctx, s)
	}
	return runBoth(ctx, func(ctx context.Context) error { return n.publishHeads(ctx, s) }, func(ctx context.Context) error { return n.fetch(ctx, s) })
}

// maxUntold bounds what a new life tells its agents of old stories.
const maxUntold = 512

// untold are the newest reports of each story that has no end yet, and of hosts that
// were out of reach: somebody's agents see to it that the ends are told.
func untold(all iter.Seq[p2pnode.Report]) []p2pnode.Report {
	over := map[string]bool{}
	last := map[string]p2pnode.Report{}
	for r := range all {
		over[r.Incident] = over[r.Incident] || r.Phase == p2pnode.PhaseVerified
		if old, ok := last[r.Incident]; !ok || r.At.After(old.At) || r.Phase == p2pnode.PhaseVerified {
			last[r.Incident] = r
		}
	}
	var out []p2pnode.Report
	for id, r := range last {
		if r.Kind == p2pnode.KindHost || !over[id] {
			r.Excerpt = nil
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b p2pnode.Report) int { return b.At.Compare(a.At) })
	return out[:min(len(out), maxUntold)]
}

func (n *Node) publishHeads(ctx context.Context, s *store.Store) error {
	if n.env.NoPush {
		<-ctx.Done()
		return nil
	}
	var last []byte
	for {
		changed := s.Changed()
		body, err := s.HeadBody()
		if err == nil && !bytes.Equal(body, last) {
			if err = n.overlay.Publish(p2pnode.DomainHead, "", body, 0); err == nil {
				last = body
			}
		}
		if err != nil {
			n.cfg.Log.Error().Err(err).Msg("report head not published")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// fetch pulls from neighbours. While something is known to be missing it asks one
// after the other, and more patiently each time that all of them had nothing; else
// one now and then.
func (n *Node) fetch(ctx context.Context, s *store.Store) error {
	turn, fails := 0, 0
	for {
		missing := s.Lacking()
		wait := lookEvery/2 + rand.N(lookEvery)
		if len(missing) > 0 {
			wait = n.patience(fails)
		} else {
			fails = 0
		}
		var from peer.ID
		select {
		case <-ctx.Done():
			return nil
		case <-s.Wake():
			fails = 0
		case from = <-n.linkUp:
		case <-time.After(wait):
		}
		if from == "" {
			from = n.whomToAsk(s.Lacking(), turn)
			turn++
		}
		if from == "" {
			fails++
			continue
		}
		if got, err := n.syncWith(ctx, s, from, len(missing) > 0 && turn%4 != 0); err != nil || got == 0 {
			fails++
		} else {
			fails = 0
		}
	}
}

// patience doubles with each round of neighbours that had nothing.
func (n *Node) patience(fails int) time.Duration {
	rounds := fails / max(1, len(n.overlay.View().Links))
	return min(retryFirst<<min(rounds, 10), retryMost)
}

// syncWith asks one neighbour for what heads name, or for all that is missing.
func (n *Node) syncWith(ctx context.Context, s *store.Store, from peer.ID, named bool) (int, error) {
	ask := func(ctx context.Context, to peer.ID, req []byte) ([]byte, error) {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		return n.overlay.Bulk(ctx, to, callStore, req)
	}
	if named {
		return s.Fetch(ctx, from, ask)
	}
	return s.Sync(ctx, from, ask)
}

func (n *Node) whomToAsk(missing []peer.ID, turn int) peer.ID {
	return whomToAsk(slices.Sorted(maps.Keys(n.overlay.View().Links)), missing, turn)
}

// whomToAsk is by turns a neighbour whose own reports are missing and any other one,
// who may have them too. All come in turn: left to chance, one of two neighbours was
// not asked seven times in a row, and a report took 6 s for one hop.
func whomToAsk(near, missing []peer.ID, turn int) peer.ID {
	if len(near) == 0 {
		return ""
	}
	i := slices.IndexFunc(missing, func(id peer.ID) bool { return slices.Contains(near, id) })
	switch {
	case i < 0:
		return near[turn%len(near)]
	case turn%2 == 0:
		return missing[i]
	}
	return near[turn/2%len(near)]
}
