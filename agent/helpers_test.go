package agent

import (
	"context"
	"errors"
	"iter"
	"maps"

	"p2pnode"

	"github.com/libp2p/go-libp2p/core/peer"
)

func maps2keys[V any](m map[string]V) iter.Seq[string] { return maps.Keys(m) }

// The cores in the queue reach the world through effects only.
type (
	noCarry struct{}
	noExec  struct{}
	noDoors struct{}
)

var errUnused = errors.New("not in the event queue")

func (noCarry) Call(context.Context, peer.ID, []byte) ([]byte, error) { return nil, errUnused }
func (noExec) Recover(context.Context, p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) {
	return p2pnode.RecoverAnswer{}, errUnused
}

func (noExec) Status(context.Context) (p2pnode.ExecStatus, error) {
	return p2pnode.ExecStatus{}, errUnused
}
func (noDoors) Status(context.Context, peer.ID) (DoorWord, error) { return DoorWord{}, errUnused }
func (noDoors) Recover(context.Context, peer.ID, p2pnode.RecoverRequest) (p2pnode.RecoverAnswer, error) {
	return p2pnode.RecoverAnswer{}, errUnused
}

type peerID = peer.ID
