// Package discover finds addresses to try: what the operator typed after --join,
// what this host's interfaces say, what others announce by multicast, and whom
// this node knew before (the peer book).
//
// Everything that it returns is a hint. A hint may be stale or a lie; who answers
// there proves its key in the handshake and its membership in hello. Nothing here
// dials a node, and nothing that comes from the network is trusted to be of
// reasonable size: see limits.go.
//
// Parsing and the rules about addresses are pure. Interfaces, StartMDNS, OpenBook
// and Book.Save touch the system.
//
// Read next: hint.go, interfaces.go; package keeper decides which hints are
// dialled and when.
package discover
