package exec

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A manager's start, stop or restart of a service of this host, his setting it aside
// (aside.go), or his reading of its log (logread.go). The node process only carries it:
// exec draws a challenge, the manager signs it together with what is to be done and to
// which host, and exec looks at the signature, at the certificates and at the cluster
// that this host trusts, all by itself. A challenge is good once, for challengeLife; no
// clocks are compared. Every member may ask for challenges, so none is remembered before
// a manager has answered it: nobody can crowd out another one's.

// notTrusted is the code of the refusal that the person at this host can lift.
const notTrusted = "not-trusted"

// actDomain is the envelope domain of such an order.
const actDomain = "host-act"

// Act is what a manager signs.
type Act struct {
	Host      string      `json:"host"` // peer ID
	Challenge []byte      `json:"challenge"`
	Verb      string      `json:"verb"` // start | stop | restart | maintenance | observe | logs
	Target    string      `json:"target"`
	Options   VerbOptions `json:"options"`
	Read      *LogRead    `json:"read,omitempty"` // logs: which lines, and for whom they are sealed
	Chain     [][]byte    `json:"chain"`          // of the signer
}

// SignAct seals an act with the manager's key.
func SignAct(key ed25519.PrivateKey, a Act) ([]byte, error) {
	raw, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	return p2pnode.Seal(actDomain, key, raw), nil
}

// challenges draws them and knows its own again, as long as this exec lives.
type challenges struct {
	mu    sync.Mutex
	key   []byte // of their seals; made with the first one
	epoch time.Time
	spent map[string]time.Time // until when each would have been good
}

// A challenge is its end, in nanoseconds since the epoch, 16 random bytes and a seal over
// both.
const challengeHead = 8 + 16

// draw makes one.
func (c *challenges) draw(now time.Time) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key == nil {
		c.key, c.epoch, c.spent = make([]byte, sha256.Size), now, map[string]time.Time{}
		rand.Read(c.key)
	}
	b := binary.BigEndian.AppendUint64(nil, uint64(now.Add(challengeLife).Sub(c.epoch)))
	b = append(b, make([]byte, challengeHead-len(b))...)
	rand.Read(b[8:])
	return append(b, c.sealLocked(b)...)
}

func (c *challenges) sealLocked(head []byte) []byte {
	h := hmac.New(sha256.New, c.key)
	h.Write(head)
	return h.Sum(nil)
}

// good reports whether text is one that was drawn here, not long ago, and not spent.
func (c *challenges) good(text []byte, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.untilLocked(text, now).IsZero()
}

// spend is good, and text is good no more.
func (c *challenges) spend(text []byte, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	until := c.untilLocked(text, now)
	maps.DeleteFunc(c.spent, func(_ string, until time.Time) bool { return !now.Before(until) })
	if until.IsZero() || len(c.spent) >= maxChallenges {
		return false
	}
	c.spent[string(text)] = until
	return true
}

// untilLocked is how long text is good; zero: not at all.
func (c *challenges) untilLocked(text []byte, now time.Time) time.Time {
	if c.key == nil || len(text) != challengeHead+sha256.Size || !hmac.Equal(text[challengeHead:], c.sealLocked(text[:challengeHead])) {
		return time.Time{}
	}
	until := c.epoch.Add(time.Duration(binary.BigEndian.Uint64(text)))
	if _, spent := c.spent[string(text)]; spent || !now.Before(until) {
		return time.Time{}
	}
	return until
}

type challengeBody struct {
	Challenge []byte `json:"challenge"`
}

type signedBody struct {
	Envelope []byte `json:"envelope"`
}

func (ss *session) challenge(json.RawMessage) (any, error) {
	if err := ss.only(RoleNode); err != nil {
		return nil, err
	}
	return challengeBody{ss.r.challenges.draw(time.Now())}, nil
}

// signed carries out a manager's order.
func (ss *session) signed(raw json.RawMessage) (any, error) {
	if err := ss.only(RoleNode); err != nil {
		return nil, err
	}
	b, err := decode[signedBody](raw)
	if err != nil {
		return nil, err
	}
	signer, act, err := readAct(b.Envelope, verbStart, verbStop, verbRestart, VerbMaintain, VerbObserve)
	var out any
	var order json.RawMessage
	if err == nil {
		order = body(verbBody{Target: act.Target, Options: act.Options})
		if err = ss.r.mayAct(signer, act); err == nil {
			switch act.Verb {
			case VerbMaintain, VerbObserve:
				err = ss.r.asideBy(act.Verb, act.Target, act.Options.Aside)
				out = VerbResult{OK: err == nil}
			default:
				out, err = ss.orderBy(act.Verb, order, "manager "+signer.String())
			}
		}
	}
	if refused, _ := errors.AsType[*p2pnode.Error](err); out == nil && (refused == nil || refused.Code != notTrusted) {
		return nil, err // of nobody who may: it is not for them to fill the audit log
	}
	e := AuditEntry{Verb: act.Verb, Caller: signer.String()}
	auditOrder(order, &e)
	outcomeOf(&e, out, err)
	ss.note(e)
	return out, err
}

// readAct opens an envelope and reads what stands in it, which is to be one of verbs.
func readAct(raw []byte, verbs ...string) (peer.ID, Act, error) {
	bad := func(why string) error {
		return &p2pnode.Error{Code: "bad-request", Text: "a signed order that cannot be read: " + why, Exit: p2pnode.ExitUsage}
	}
	if len(raw) > maxSigned {
		return "", Act{}, bad("too long")
	}
	env, err := p2pnode.Open(actDomain, raw)
	if err != nil {
		return "", Act{}, bad("its signature")
	}
	var a Act
	if json.Unmarshal(env.Payload, &a) != nil {
		return "", Act{}, bad("no order")
	}
	if !slices.Contains(verbs, a.Verb) {
		return "", Act{}, bad("its verb")
	}
	a.Options.Force = false // a second copy may only be started by somebody who is on the host
	a.Options.Timeout = min(a.Options.Timeout, maxSignedWait)
	return env.Signer, a, nil
}

// mayAct reports why the signer may not have this done here, now.
func (r *runner) mayAct(signer peer.ID, a Act) error {
	key, err := p2pnode.LoadKey(filepath.Join(r.cfg.Dir, "node.key"))
	if err != nil {
		return fmt.Errorf("this host's own key: %w", err)
	}
	if a.Host != p2pnode.PeerID(key.Public().(ed25519.PublicKey)).String() {
		return refused("wrong-host", "the order is for another host", "")
	}
	now := time.Now()
	stale := func() error {
		return refused("stale-order", "the order is no answer to a challenge of this host, or too late", "run the command again")
	}
	if !r.challenges.good(a.Challenge, now) {
		return stale()
	}
	papers, err := r.asManager(signer, a.Chain)
	if err != nil {
		return err
	}
	if !r.challenges.spend(a.Challenge, now) {
		return stale() // spent first: the refusal below is a line of the audit log, and who carries it may repeat it
	}
	return papers.trusted()
}

// asManager reports why the signer is no manager of this host's cluster, now.
func (r *runner) asManager(signer peer.ID, chain [][]byte) (pinnedPapers, error) {
	papers, err := pinned(r.cfg.Dir)
	if err != nil {
		return papers, err
	}
	cert, err := p2pnode.VerifyChain(papers.Root, chain, papers.Revoked)
	switch {
	case err != nil:
		return papers, refused("not-permitted", "the order's certificate does not count here: "+err.Error(), "")
	case cert.ID != signer || !cert.Privileged(r.clock(time.Now())):
		return papers, refused("not-permitted", "only a manager whose certificate is in force may have that done", "run it on a manager: p2pnode nodes shows them")
	}
	return papers, nil
}

// trusted reports why managers may not give orders here.
func (p pinnedPapers) trusted() error {
	if p.Trusted {
		return nil
	}
	return refused(notTrusted, "this host took its cluster on first sight: its managers may look and repair, not stop, start, set aside or read logs", "on that host run: p2pnode trust "+p2pnode.ClusterID(p.Root))
}

func refused(code, text, fix string) error {
	return &p2pnode.Error{Code: code, Text: text, Fix: fix, Exit: p2pnode.ExitNotPermitted}
}

// clock is the time that certificates are judged by: a clock that stands before the day
// on which this program was built is wrong (see overlay).
func (r *runner) clock(now time.Time) time.Time {
	if now.Before(r.cfg.Built) {
		return r.cfg.Built
	}
	return now
}

// pinnedPapers is what exec reads of the cluster that its host is in.
type pinnedPapers struct {
	Root    []byte              `json:"root"`
	Trusted bool                `json:"trusted"`
	Revoked p2pnode.Revocations `json:"revoked"`
}

// pinned reads the host's papers, and the revocations that the node process left for
// the door.
func pinned(dir string) (p pinnedPapers, err error) {
	for _, name := range []string{"cluster.json", "trust.json"} {
		var part pinnedPapers
		raw, err := os.ReadFile(filepath.Join(dir, name))
		if err == nil {
			err = json.Unmarshal(raw, &part)
		}
		if err != nil {
			return p, &p2pnode.Error{Code: "not-a-member", Text: "this host's papers cannot be read: " + err.Error(), Fix: "p2pnode status on that host", Exit: p2pnode.ExitNotPermitted}
		}
		if name == "cluster.json" {
			p.Root, p.Trusted = part.Root, part.Trusted
		} else {
			p.Revoked = part.Revoked
		}
	}
	return p, nil
}
