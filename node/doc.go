// Package node composes one node process: overlay, gossip, agents, store and
// management over the host's exec. It is the only place where these five meet;
// each declares what it needs of the others, and a small adapter here supplies
// it, one file per seam.
//
// It promises an order: hello goes out before the store is open, so that a node
// process that was just restarted is a member again before its disk has been
// read; and an orderly end says so to everybody before the links close, so that
// nobody repairs what was stopped on purpose.
//
// Network, exec, doors and randomness come in through Env. Whole clusters run in
// a synctest bubble that way: test/sim replaces Env and nothing else.
//
// Read next: node.go for the composition and the order of life, then one adapter
// at a time; package agent for what is decided here.
package node
