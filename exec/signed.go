package exec

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A manager's start, stop or restart of a service of this host. The node process only
// carries it: exec draws a challenge, the manager signs it together with what is to be
// done and to which host, and exec looks at the signature, at the certificates and at
// the cluster that this host trusts, all by itself. A challenge is good once, for
// challengeLife; no clocks are compared.

// notTrusted is the code of the refusal that the person at this host can lift.
const notTrusted = "not-trusted"

// actDomain is the envelope domain of such an order.
const actDomain = "host-act"

// Act is what a manager signs.
type Act struct {
	Host      string      `json:"host"` // peer ID
	Challenge []byte      `json:"challenge"`
	Verb      string      `json:"verb"` // start | stop | restart
	Target    string      `json:"target"`
	Options   VerbOptions `json:"options"`
	Chain     [][]byte    `json:"chain"` // of the signer
}

// SignAct seals an act with the manager's key.
func SignAct(key ed25519.PrivateKey, a Act) ([]byte, error) {
	raw, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	return p2pnode.Seal(actDomain, key, raw), nil
}

// challenges are those that were drawn and not used yet, oldest first.
type challenges struct {
	mu   sync.Mutex
	list []challenge
}

type challenge struct {
	text  string
	until time.Time
}

// draw makes one; of too many the oldest is dropped.
func (c *challenges) draw(now time.Time) []byte {
	b := make([]byte, 16)
	rand.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, challenge{string(b), now.Add(challengeLife)})
	c.list = c.list[max(0, len(c.list)-maxChallenges):]
	return b
}

// spend reports whether text is one that is still good; it is good no more.
func (c *challenges) spend(text []byte, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.IndexFunc(c.list, func(x challenge) bool { return x.text == string(text) })
	if i < 0 {
		return false
	}
	good := now.Before(c.list[i].until)
	c.list = slices.Delete(c.list, i, i+1)
	return good
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
	signer, act, err := readAct(b.Envelope)
	var out any
	var order json.RawMessage
	if err == nil {
		order = body(verbBody{Target: act.Target, Options: act.Options})
		if err = ss.r.mayAct(signer, act); err == nil {
			out, err = ss.orderBy(act.Verb, order, "manager "+signer.String())
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

// readAct opens an envelope and reads what stands in it.
func readAct(raw []byte) (peer.ID, Act, error) {
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
	if a.Verb != verbStart && a.Verb != verbStop && a.Verb != verbRestart {
		return "", Act{}, bad("its verb")
	}
	a.Options.Force = false // a second copy may only be started by somebody who is on the host
	a.Options.Timeout = min(a.Options.Timeout, maxSignedWait)
	return env.Signer, a, nil
}

// mayAct reports why the signer may not have this done here, now.
func (r *runner) mayAct(signer peer.ID, a Act) error {
	refuse := func(code, text, fix string) error {
		return &p2pnode.Error{Code: code, Text: text, Fix: fix, Exit: p2pnode.ExitNotPermitted}
	}
	key, err := p2pnode.LoadKey(filepath.Join(r.cfg.Dir, "node.key"))
	if err != nil {
		return fmt.Errorf("this host's own key: %w", err)
	}
	if a.Host != p2pnode.PeerID(key.Public().(ed25519.PublicKey)).String() {
		return refuse("wrong-host", "the order is for another host", "")
	}
	if !r.challenges.spend(a.Challenge, time.Now()) {
		return refuse("stale-order", "the order is no answer to a challenge of this host, or too late", "run the command again")
	}
	papers, err := pinned(r.cfg.Dir)
	if err != nil {
		return err
	}
	cert, err := p2pnode.VerifyChain(papers.Root, a.Chain, papers.Revoked)
	switch {
	case err != nil:
		return refuse("not-permitted", "the order's certificate does not count here: "+err.Error(), "")
	case cert.ID != signer || !cert.Privileged(time.Now()):
		return refuse("not-permitted", "only a manager whose certificate is in force may have that done", "run it on a manager: p2pnode nodes shows them")
	case !papers.Trusted:
		return refuse(notTrusted, "this host took its cluster on first sight: its managers may look and repair, not stop or start", "on that host run: p2pnode trust "+p2pnode.ClusterID(papers.Root))
	}
	return nil
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
