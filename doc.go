// Package p2pnode is the vocabulary of a fleet that keeps its processes alive
// without a master: the words that the domain packages (overlay, gossip, agent,
// exec, store) share, and nothing that acts.
//
// It promises three things. Types here are plain values: safe to copy, compare
// where their doc says so, and to hand across goroutines. Strings that a person
// or a script sees (verdicts, states, classes, phases) are spelled here once;
// they are added to, never renamed. Everything that is signed is signed by the
// one Envelope of this package, so that a process that links no libp2p (exec,
// the door) verifies the same bytes as one that does.
//
// It imports the standard library and libp2p's core/peer only; test/arch keeps
// it so.
//
// Read next: identity.go, certificate.go, envelope.go; then package exec for
// what a host does alone and package agent for what the fleet does for it.
package p2pnode
