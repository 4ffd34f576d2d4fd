// Package gossip says what to believe of other nodes, and why.
//
// It keeps memberlist (SWIM) in quarantine: its packets are sealed by us, its
// streams run over the overlay, and its word is one witness among several. The
// membership comes from certificates (SetPeers), never from memberlist's Members:
// one forged packet there removes a live node for good.
//
// Belief is a pure core (core.go) over evidence: links that end, heartbeats that
// do not come, a door's word, our own probes, what others signed. It promises:
//
//   - Doubt needs one observation. A dead process needs the word of its own host
//     (exec or door, or a neighbour that has just asked it) about exactly that
//     life. Unreachable needs silence at two witnesses, each with its own burst of
//     probes unanswered, and no sign of life since.
//   - Whoever has a live link believes the link before any claim.
//   - A node whose own timers were late accuses nobody for a while.
//   - A newer life, signed by the node itself, ends every suspicion of the old one.
//
// Beliefs are immutable snapshots; Changed says that there is a newer one. Inputs
// enqueue and return; a full queue drops and counts. Everything runs in a
// synctest bubble over test/memnet.
//
// Sources: SWIM (Das, Gupta, Motivala 2002), Lifeguard (Dadgar, Phillips, Currey
// 2017).
//
// Read next: core.go, judge.go, then run.go.
package gossip
