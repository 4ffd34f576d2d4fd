// Package overlay is the network of nodes: identities and admission, links,
// signed records and their spreading, the routing table, calls to neighbours and
// along routes.
//
// It promises:
//
//   - Four protocols and no more (protocols.go). Before hello has shown a
//     certificate of the cluster nothing else is answered.
//   - A link is a connection that is kept, with hello done both ways and one open
//     stream. Its end is reported the moment the kernel knows; two silent seconds
//     are reported too.
//   - A member's word is its signed record; what is refused is counted by reason.
//     Limits hold on the bytes before they are decoded (limits.go).
//   - Views are immutable snapshots; Changed says that there is a newer one.
//     Callbacks run on one goroutine, in order, and must not block.
//   - Without a certificate and with a --join that fails the node tries for ever
//     and founds nothing.
//
// libp2p is composed by hand: a swarm over a small transport of our own
// (transport.go), TLS 1.3, yamux. There is no libp2p host: identify, ping, relay
// and NAT services would be protocols of which we promise that they are not there.
//
// The same code runs in simulation, over a Network in memory. Tests: memnet in a
// synctest bubble, and real sockets on loopback.
//
// Read next: overlay.go, hello.go, link.go; the packages route, records, keeper
// and discover are the parts that decide.
package overlay
