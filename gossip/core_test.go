package gossip

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"pgregory.net/rapid"

	"p2pnode"
)

// bench is a core with five peers, of which the first is the subject.
type bench struct {
	*core
	now  time.Time
	self peer.ID
	ids  []peer.ID
	life p2pnode.Life
	did  []effect
}

func newBench() *bench {
	b := &bench{now: time.Unix(1_000_000, 0), self: testID(0), life: p2pnode.Life{Boot: 3, Nonce: 1}}
	b.core = newCore(b.self)
	for i := range 5 {
		b.ids = append(b.ids, testID(i+1))
	}
	b.certify(b.life, false)
	return b
}

func (b *bench) certify(life p2pnode.Life, left bool) {
	var ps []Peer
	for i, id := range b.ids {
		p := Peer{ID: id, Name: "p", Life: p2pnode.Life{Boot: 1, Nonce: 1}, Door: "d", Addrs: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:7744")}, Neighbours: append([]peer.ID{b.self}, b.ids...), Routed: true}
		if i == 0 {
			p.Life, p.Left = life, left
		}
		ps = append(ps, p)
	}
	b.do(evPeers{ps})
}

func (b *bench) do(ev event) { b.did = append(b.did, b.step(b.now, ev)...) }

func (b *bench) after(d time.Duration) *bench {
	for range int(d / tickEvery) {
		b.now = b.now.Add(tickEvery)
		b.do(evTick{})
	}
	return b
}

func (b *bench) verdict() p2pnode.Verdict { return b.peers[b.ids[0]].verdict }

func (b *bench) want(t *testing.T, v p2pnode.Verdict) {
	t.Helper()
	if got := b.verdict(); got != v {
		doc, _ := b.why(b.now, b.ids[0])
		t.Fatalf("verdict %s, want %s; evidence %+v", got, v, doc.Evidence)
	}
}

// A link may begin before the record of its peer has come, and the record may go
// and come again while the link lasts: who had the link is a witness all the same.
func TestALinkIsFasterThanItsRecord(t *testing.T) {
	silent := func(t *testing.T, b *bench) {
		t.Helper()
		s := b.peers[b.ids[0]]
		if s == nil || !b.linkSpeaks(s) {
			t.Fatalf("the link counts for nothing: %+v", s)
		}
		b.did = nil
		b.do(evLink{peer: b.ids[0], lost: true})
		b.after(200 * time.Millisecond)
		b.do(evBurst{peer: b.ids[0]})
		if !slices.Contains(b.did, effect(effPublish{b.ids[0], kindSilent, b.life})) {
			t.Errorf("no witness of the silence: %+v", b.did)
		}
	}
	t.Run("begins before", func(t *testing.T) {
		b := &bench{now: time.Unix(1_000_000, 0), self: testID(0), life: p2pnode.Life{Boot: 3, Nonce: 1}, ids: []peer.ID{testID(1), testID(2)}}
		b.core = newCore(b.self)
		b.do(evLink{peer: b.ids[0], up: true})
		b.certify(b.life, false)
		silent(t, b)
	})
	t.Run("outlasts it", func(t *testing.T) {
		b := newBench()
		b.do(evLink{peer: b.ids[0], up: true})
		b.do(evPeers{})
		b.certify(b.life, false)
		silent(t, b)
	})
	t.Run("ended before", func(t *testing.T) {
		b := newBench()
		b.do(evPeers{})
		b.do(evLink{peer: b.ids[0], up: true})
		b.do(evLink{peer: b.ids[0]})
		b.certify(b.life, false)
		if s := b.peers[b.ids[0]]; s.linked || s.hadLink || len(b.early) > 0 {
			t.Errorf("a link that has ended counts: %+v", s)
		}
	})
}

func TestVerdictTable(t *testing.T) {
	x := testID(1)
	claimBy := func(i int, k kind, life p2pnode.Life) func(*bench) {
		return func(b *bench) {
			b.do(evClaim{witness: b.ids[i], subject: x, kind: k, life: life, expires: b.now.Add(claimTTL)})
		}
	}
	refusing := func(b *bench) {
		for range shutLooks {
			b.do(evDial{peer: x, refused: true})
			b.do(evKnock{peer: x, err: true, refused: true})
		}
	}
	lost := func(who ...int) func(*bench) {
		return func(b *bench) {
			for _, i := range who {
				b.do(evLink{peer: b.ids[i], up: true})
				b.do(evLink{peer: b.ids[i], lost: true})
			}
		}
	}
	linkLost := func(b *bench) {
		b.do(evLink{peer: x, up: true})
		b.after(time.Second)
		b.do(evLink{peer: x, lost: true})
	}
	shut := func(b *bench) {
		b.do(evDial{peer: x, refused: true})
		b.do(evKnock{peer: x, err: true, refused: true})
	}
	noAnswer := func(b *bench) { b.after(200 * time.Millisecond); b.do(evBurst{peer: x}) }
	word := func(w DoorWord) func(*bench) { return func(b *bench) { b.do(evKnock{peer: x, word: w}) } }
	cur := newBench().life
	old := p2pnode.Life{Boot: 2, Nonce: 1}
	cases := []struct {
		name string
		acts []func(*bench)
		want p2pnode.Verdict
	}{
		{"nothing happened", nil, p2pnode.Alive},
		{"a lost link alone", []func(*bench){linkLost}, p2pnode.Doubtful},
		{"a link that closed on purpose", []func(*bench){func(b *bench) { b.do(evLink{peer: x, up: true}); b.do(evLink{peer: x}) }}, p2pnode.Alive},
		{"two missed heartbeats", []func(*bench){func(b *bench) { b.do(evLink{peer: x, up: true}); b.do(evMissed{x, 2}) }}, p2pnode.Doubtful},
		{"one missed heartbeat", []func(*bench){func(b *bench) { b.do(evLink{peer: x, up: true}); b.do(evMissed{x, 1}) }}, p2pnode.Alive},
		{"SWIM suspicion, and no answer to our probes", []func(*bench){func(b *bench) { b.do(evHeard{x}); b.after(time.Second); b.do(evSwim{x, swimSuspect}) }, noAnswer}, p2pnode.Doubtful},
		{"the same of one that no packet ever came from", []func(*bench){func(b *bench) { b.do(evSwim{x, swimSuspect}) }, noAnswer}, p2pnode.Alive},
		{"SWIM suspicion alone", []func(*bench){func(b *bench) { b.do(evSwim{x, swimSuspect}) }}, p2pnode.Alive},
		{"SWIM death alone", []func(*bench){func(b *bench) { b.do(evSwim{x, swimDead}) }}, p2pnode.Alive},
		{"SWIM death and suspicion, no answer, and a live link", []func(*bench){func(b *bench) {
			b.do(evLink{peer: x, up: true})
			b.do(evSwim{x, swimSuspect})
			b.do(evSwim{x, swimDead})
		}, noAnswer}, p2pnode.Alive},
		{"the door says dead", []func(*bench){linkLost, word(DoorWord{ExecAlive: true, NodeLife: cur})}, p2pnode.ProcessDead},
		{"the door says dead of an old life", []func(*bench){linkLost, word(DoorWord{ExecAlive: true, NodeLife: old})}, p2pnode.Doubtful},
		{"the door says exec is dead", []func(*bench){linkLost, word(DoorWord{NodeAlive: true, NodeLife: cur})}, p2pnode.ExecDead},
		{"frozen, by the door and by silence", []func(*bench){linkLost, word(DoorWord{ExecAlive: true, NodeAlive: true, NodeState: "frozen", NodeLife: cur})}, p2pnode.Hung},
		{"a neighbour says process-dead of this life", []func(*bench){claimBy(1, kindProcessDead, cur)}, p2pnode.ProcessDead},
		{"a neighbour says process-dead of an old life", []func(*bench){claimBy(1, kindProcessDead, old)}, p2pnode.Alive},
		{"a neighbour says so, and the link is alive", []func(*bench){func(b *bench) { b.do(evLink{peer: x, up: true}) }, claimBy(1, kindProcessDead, cur)}, p2pnode.Alive},
		{"a notice of this life's end", []func(*bench){func(b *bench) { b.do(evDeath{x, cur}) }}, p2pnode.ProcessDead},
		{"a notice of an old life's end", []func(*bench){func(b *bench) { b.do(evDeath{x, old}) }}, p2pnode.Alive},
		{"one witness of silence", []func(*bench){linkLost, noAnswer}, p2pnode.Doubtful},
		{"two witnesses of silence", []func(*bench){linkLost, noAnswer, claimBy(1, kindSilent, cur)}, p2pnode.Unreachable},
		{"two others, and nothing of our own", []func(*bench){claimBy(1, kindSilent, cur), claimBy(2, kindSilent, cur)}, p2pnode.Unreachable},
		{"two others, and a live link", []func(*bench){func(b *bench) { b.do(evLink{peer: x, up: true}) }, claimBy(1, kindSilent, cur), claimBy(2, kindSilent, cur)}, p2pnode.Alive},
		{"two witnesses, but the port refuses", []func(*bench){linkLost, noAnswer, func(b *bench) { b.do(evDial{peer: x, refused: true}) }, claimBy(1, kindSilent, cur)}, p2pnode.Doubtful},
		{"two witnesses, then an answered probe", []func(*bench){linkLost, noAnswer, claimBy(1, kindSilent, cur), func(b *bench) { b.do(evBurst{peer: x, answered: true}) }, claimBy(1, kindFine, cur)}, p2pnode.Alive},
		{"port and door both refuse, once", []func(*bench){linkLost, shut}, p2pnode.Doubtful},
		{"port and door both refuse, then the door answers", []func(*bench){linkLost, shut, word(DoorWord{ExecAlive: true, NodeLife: cur}), shut}, p2pnode.ProcessDead},
		{"port and door both refuse", []func(*bench){linkLost, shut, shut}, p2pnode.ExecDead},
		{"they refused, and later nothing answers", []func(*bench){
			linkLost, shut, shut,
			func(b *bench) { b.after(vetoTime + 500*time.Millisecond) }, noAnswer,
			func(b *bench) { b.do(evDial{peer: x}); b.do(evKnock{peer: x, err: true}) }, claimBy(1, kindSilent, cur),
		}, p2pnode.Unreachable},
		{"they refused, and later nothing answers, while knock and dial still wait", []func(*bench){
			linkLost, refusing,
			func(b *bench) { b.after(vetoTime + 500*time.Millisecond) }, noAnswer, claimBy(1, kindSilent, cur),
		}, p2pnode.Unreachable},
		{"they refused, and nobody could look again", []func(*bench){
			linkLost, shut, shut,
			func(b *bench) { b.do(evDial{peer: x, void: true}); b.do(evKnock{peer: x, void: true}) },
		}, p2pnode.ExecDead},
		{"its host is only starting it", []func(*bench){linkLost, word(DoorWord{ExecAlive: true, NodeState: "starting", NodeLife: cur})}, p2pnode.Doubtful},
		{"a burst that could not be sent", []func(*bench){linkLost, func(b *bench) { b.after(200 * time.Millisecond); b.do(evBurst{peer: x, void: true}) }, claimBy(1, kindSilent, cur)}, p2pnode.Doubtful},
		{"our own health is bad, while the others are well", []func(*bench){linkLost, func(b *bench) { b.do(evTick{health: badHealth}) }, noAnswer, claimBy(1, kindSilent, cur)}, p2pnode.Doubtful},
		{"our own health is bad, since half of the fleet is gone", []func(*bench){lost(1, 2), linkLost, func(b *bench) { b.do(evTick{health: badHealth}) }, noAnswer, claimBy(1, kindSilent, cur)}, p2pnode.Unreachable},
		{"two witnesses, and a third one hears it", []func(*bench){linkLost, noAnswer, claimBy(1, kindSilent, cur), claimBy(2, kindHeard, cur)}, p2pnode.Doubtful},
		{"a third one heard an earlier life", []func(*bench){linkLost, noAnswer, claimBy(1, kindSilent, cur), claimBy(2, kindHeard, old)}, p2pnode.Unreachable},
		{"a third one heard it, and takes it back", []func(*bench){linkLost, noAnswer, claimBy(1, kindSilent, cur), claimBy(2, kindHeard, cur), claimBy(2, kindFine, cur)}, p2pnode.Unreachable},
		{"one witness of silence, and our probes are answered", []func(*bench){claimBy(1, kindSilent, cur), func(b *bench) { b.after(200 * time.Millisecond); b.do(evBurst{peer: x, answered: true}) }}, p2pnode.Alive},
		{"one witness of silence, before our probes are back", []func(*bench){claimBy(1, kindSilent, cur)}, p2pnode.Alive},
		{"one witness of silence, our probes unanswered too", []func(*bench){claimBy(1, kindSilent, cur), noAnswer}, p2pnode.Doubtful},
		{"it left", []func(*bench){linkLost, func(b *bench) { b.certify(b.life, true) }}, p2pnode.Left},
		{"dead, then a new life", []func(*bench){linkLost, word(DoorWord{ExecAlive: true, NodeLife: cur}), func(b *bench) { b.certify(p2pnode.Life{Boot: 4, Nonce: 2}, false) }}, p2pnode.Alive},
		{"the last packets of the dead are no life", []func(*bench){linkLost, func(b *bench) { b.do(evHeard{x}) }, word(DoorWord{ExecAlive: true, NodeLife: cur})}, p2pnode.ProcessDead},
		{"a witness of itself", []func(*bench){claimBy(0, kindProcessDead, cur)}, p2pnode.Alive},
		{"our own timers were late", []func(*bench){linkLost, func(b *bench) { b.do(evTick{late: true}) }, noAnswer, claimBy(1, kindSilent, cur)}, p2pnode.Doubtful},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			b := newBench()
			for _, act := range c.acts {
				act(b)
			}
			b.after(contradictIn)
			b.want(t, c.want)
		})
	}
}

// A host whose door refuses each look, and that nothing else is known of, is in
// doubt all the time: between two looks it does not become unreachable. Dark from one
// look on, it does once.
func TestVerdictIsSteadyBetweenLooks(t *testing.T) {
	b := newBench()
	x := b.ids[0]
	b.do(evLink{peer: x, up: true})
	b.do(evLink{peer: x, lost: true})
	was, changes, said := b.verdict(), 0, b.now
	look := func(d time.Duration, dark bool) {
		for end := b.now.Add(d); b.now.Before(end); {
			b.after(tickEvery)
			if b.now.Sub(said) >= claimEvery {
				said = b.now
				b.do(evClaim{witness: b.ids[1], subject: x, kind: kindSilent, life: b.peers[x].Life, expires: b.now.Add(time.Minute)})
			}
			for i := 0; i < len(b.did); i++ {
				switch b.did[i].(type) {
				case effBurst:
					b.do(evBurst{peer: x})
				case effKnock:
					b.do(evKnock{peer: x, err: true, refused: !dark})
				}
			}
			b.did = nil
			if v := b.verdict(); v != was {
				was, changes = v, changes+1
			}
		}
	}
	look(time.Minute, false)
	if was != p2pnode.Doubtful || changes > 1 {
		t.Errorf("%s after %d changes in a minute of refusals", was, changes)
	}
	changes = 0
	look(time.Minute, true)
	if was != p2pnode.Unreachable || changes != 1 {
		t.Errorf("%s after %d changes in a dark minute", was, changes)
	}
}

// Whatever happens, in whatever order: a verdict that lets others act has the
// evidence that it needs.
func TestNoVerdictWithoutItsEvidence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBench()
		x := b.ids[0]
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			b.after(time.Duration(rapid.IntRange(0, 30).Draw(t, "ticks")) * tickEvery)
			switch rapid.IntRange(0, 9).Draw(t, "event") {
			case 0:
				b.do(evLink{peer: x, up: true})
			case 1:
				b.do(evLink{peer: x, lost: rapid.Bool().Draw(t, "lost")})
			case 2:
				b.do(evMissed{x, rapid.IntRange(0, 4).Draw(t, "missed")})
			case 3:
				b.do(evBurst{peer: x, answered: rapid.Bool().Draw(t, "answered")})
			case 4:
				b.do(evSwim{x, swimWord(rapid.IntRange(0, 3).Draw(t, "swim"))})
			case 5:
				k := rapid.SampledFrom([]kind{kindSilent, kindFine}).Draw(t, "kind")
				b.do(evClaim{witness: b.ids[rapid.IntRange(0, 4).Draw(t, "witness")], subject: x, kind: k, life: b.life, expires: b.now.Add(claimTTL)})
			case 6:
				b.do(evDial{peer: x, refused: rapid.Bool().Draw(t, "refused")})
			case 7:
				b.do(evHeard{x})
			case 8:
				b.do(evTick{late: rapid.IntRange(0, 5).Draw(t, "late") == 0})
			case 9:
				b.do(evKnock{peer: x, word: DoorWord{ExecAlive: true, NodeAlive: true, NodeState: "up", NodeLife: b.life}})
			}
			s := b.peers[x]
			if v := b.verdict(); v == p2pnode.ProcessDead || v == p2pnode.Hung {
				t.Fatalf("%s, and nobody who knows said so", v)
			}
			if b.verdict() != p2pnode.Unreachable {
				continue
			}
			witnesses := b.claimed(s, kindSilent)
			if b.silent(b.now, s) {
				witnesses++
			}
			if !s.swimDead.IsZero() {
				witnesses++
			}
			if witnesses < 2 || b.linkSpeaks(s) {
				t.Fatalf("unreachable with %d witnesses, link %v", witnesses, b.linkSpeaks(s))
			}
		}
	})
}

// Every suspicion is looked into: a burst, a knock, and again until it is settled.
func TestSuspicionIsLookedInto(t *testing.T) {
	b := newBench()
	x := b.ids[0]
	b.do(evLink{peer: x, up: true})
	b.did = nil
	b.do(evLink{peer: x, lost: true})
	if !slices.ContainsFunc(b.did, func(e effect) bool { return e == effKnock{x} }) {
		t.Fatalf("a lost link is not asked about at once: %v", b.did)
	}
	knocks := 1
	for range 20 {
		b.do(evKnock{peer: x, err: true})
		b.did = nil
		b.after(time.Second / 4)
		knocks += len(slices.DeleteFunc(b.did, func(e effect) bool { return e != effKnock{x} }))
	}
	if knocks < 3 || knocks > 12 {
		t.Fatalf("%d knocks in 5 s of silence", knocks)
	}
}

// What SWIM says is looked into with probes before anybody is doubted.
func TestSWIMIsLookedInto(t *testing.T) {
	for _, w := range []swimWord{swimSuspect, swimDead} {
		b := newBench()
		b.did = nil
		b.do(evSwim{b.ids[0], w})
		if !slices.Contains(b.did, effect(effBurst{b.ids[0]})) {
			t.Errorf("SWIM says %d and nobody probes: %v", w, b.did)
		}
	}
}

// A peer whose link comes and goes is called doubtful until it has been quiet for
// a while; a new life starts with a clean slate.
func TestFlapsAreDamped(t *testing.T) {
	b := newBench()
	x := b.ids[0]
	changes := 0
	last := b.verdict()
	for range 300 { // 10 minutes of a link that is up for a second and down for one
		b.do(evLink{peer: x, up: true})
		b.after(time.Second)
		if v := b.verdict(); v != last {
			last = v
			changes++
		}
		b.do(evLink{peer: x, lost: true})
		b.after(time.Second)
		if v := b.verdict(); v != last {
			last = v
			changes++
		}
	}
	if changes > 12 {
		t.Errorf("the verdict changed %d times in 10 minutes", changes)
	}
	b.do(evLink{peer: x, up: true})
	b.want(t, p2pnode.Doubtful)
	if doc, _ := b.why(b.now, x); !slices.ContainsFunc(doc.Evidence, func(e p2pnode.EvidenceDoc) bool { return strings.Contains(e.Text, "comes and goes") }) {
		t.Errorf("nodes why does not say so: %+v", doc.Evidence)
	}
	b.after(flapQuiet + time.Second)
	b.want(t, p2pnode.Alive)

	for range 10 {
		b.do(evLink{peer: x, lost: true})
		b.after(time.Second)
		b.do(evLink{peer: x, up: true})
		b.after(time.Second)
	}
	b.want(t, p2pnode.Doubtful)
	b.certify(p2pnode.Life{Boot: 9, Nonce: 9}, false)
	b.want(t, p2pnode.Alive)
}

// Damping hides recoveries, never failures.
func TestFlapsHideNoDeath(t *testing.T) {
	b := newBench()
	x := b.ids[0]
	for range 20 {
		b.do(evLink{peer: x, up: true})
		b.after(time.Second)
		b.do(evLink{peer: x, lost: true})
	}
	b.do(evKnock{peer: x, word: DoorWord{ExecAlive: true, NodeLife: b.life}})
	b.want(t, p2pnode.ProcessDead)
}

// While nothing is said against anybody few ticks are enough; whatever is said makes
// them many at once, and until it is over.
func TestTicksAreFewWhileAllIsWell(t *testing.T) {
	b := newBench()
	for i := range b.ids {
		b.do(evLink{peer: b.ids[i], up: true})
		b.do(evSwim{b.ids[i], swimAlive})
	}
	b.after(10 * time.Second)
	if b.pace() != calmTick {
		t.Fatal("a well fleet is looked at twenty times a second")
	}
	x, w := b.ids[0], b.ids[1]
	for _, c := range []struct {
		name     string
		ev, over event
	}{
		{"one late heartbeat", evMissed{x, 1}, evMissed{x, 0}},
		{"a lost link", evLink{peer: x, lost: true}, evLink{peer: x, up: true}},
		{"what others say", evClaim{witness: w, subject: x, kind: kindSilent, life: b.life, expires: b.now.Add(time.Hour)}, evClaim{witness: w, subject: x, kind: kindFine, life: b.life}},
		{"SWIM's suspicion", evSwim{x, swimSuspect}, evSwim{x, swimAck}},
		{"a door's notice", evDeath{x, b.life}, evHeard{x}},
	} {
		b.do(c.ev)
		if b.pace() != tickEvery {
			t.Errorf("%s: the next tick is %v away", c.name, b.pace())
		}
		b.do(c.over)
		if b.after(15 * time.Second); b.pace() != calmTick {
			t.Errorf("%s: never calm again: %+v", c.name, *b.peers[x])
		}
	}
}
