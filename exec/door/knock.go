package door

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// Knocker asks other hosts' doors. It is safe for concurrent use; every knock is a
// connection of its own (3 to 4 ms on loopback, most of it the handshake).
type Knocker struct {
	key     ed25519.PrivateKey
	chain   func() [][]byte
	root    func() []byte
	revoked func() p2pnode.Revocations
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
}

// NewKnocker makes a Knocker that proves itself with key and chain and trusts
// doors under root. revoked may be nil; dial nil means the host's network.
func NewKnocker(key ed25519.PrivateKey, chain func() [][]byte, root func() []byte, revoked func() p2pnode.Revocations,
	dial func(ctx context.Context, network, address string) (net.Conn, error),
) *Knocker {
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	return &Knocker{key: key, chain: chain, root: root, revoked: revoked, dial: dial}
}

// Status asks the door of node want at addr (host:port) how its host is.
func (k *Knocker) Status(ctx context.Context, addr string, want peer.ID) (Status, error) {
	a, err := k.ask(ctx, addr, want, request{Verb: verbStatus})
	if err != nil {
		return Status{}, err
	}
	if a.Status == nil {
		return Status{}, fmt.Errorf("door of %s: %w: no status in its answer", p2pnode.ShortID(want), errFrame)
	}
	return *a.Status, nil
}

// Recover hands req to the exec behind the door of node want.
func (k *Knocker) Recover(ctx context.Context, addr string, want peer.ID, req p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) {
	a, err := k.ask(ctx, addr, want, request{Verb: verbRecover, Recover: &req})
	if err != nil {
		return p2pnode.RecoverAnswer{}, err
	}
	if a.Recover == nil {
		return p2pnode.RecoverAnswer{}, fmt.Errorf("door of %s: %w: no word on recover", p2pnode.ShortID(want), errFrame)
	}
	return *a.Recover, nil
}

// notice tells the door of node want that life, of the caller's node process,
// has ended.
func (k *Knocker) notice(ctx context.Context, addr string, want peer.ID, life p2pnode.Life) error {
	_, err := k.ask(ctx, addr, want, request{Verb: verbNotice, Life: life})
	return err
}

func (k *Knocker) ask(ctx context.Context, addr string, want peer.ID, req request) (answer, error) {
	root, chain := k.root(), k.chain()
	if len(root) == 0 || len(chain) == 0 {
		return answer{}, errNoPapers
	}
	ctx, cancel := context.WithTimeout(ctx, handshakeTime+answerTime)
	defer cancel()
	raw, err := k.dial(ctx, "tcp", addr)
	if err != nil {
		return answer{}, fmt.Errorf("door of %s at %s: %w", p2pnode.ShortID(want), addr, err)
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var revoked p2pnode.Revocations
	if k.revoked != nil {
		revoked = k.revoked()
	}
	conn := tls.Client(raw, config(chain, k.key, verifyDoor(root, revoked, want)))
	var a answer
	err = conn.HandshakeContext(ctx)
	if err == nil {
		err = writeFrame(conn, req)
	}
	if err == nil {
		err = readFrame(conn, &a)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return answer{}, fmt.Errorf("door of %s at %s: %w", p2pnode.ShortID(want), addr, err)
	}
	if a.Error != nil {
		return answer{}, a.Error
	}
	return a, nil
}
