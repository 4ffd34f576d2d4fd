// Package keeper decides which links a node keeps: whom to dial, when to try
// again, which of two connections stays. It dials nothing itself.
//
// Core is pure: Step(now, event) returns effects, randomness is given in, one
// goroutine owns it. It promises:
//
//   - Four links dialled by this node, wherever that many others can be reached,
//     besides those that others dialled; at least one into each known subnet.
//   - First dials go out at once and side by side; a candidate that failed waits,
//     0.5 s doubled up to 10 min, jittered by a quarter. A node without any link,
//     and a join address that never answered, are tried at least every 15 s, for
//     ever.
//   - Splits heal: one member without a route is dialled every 3 to 5 s, the one
//     that was tried longest ago, whatever its backoff says.
//   - Of two connections with one peer the one dialled by the lower peer ID stays.
//     Only the lower ID closes the other, after a second: two ends that both
//     closed "the younger one" would close both.
//   - A peer on the deny list is neither dialled nor kept.
//   - It lets go slowly: at most one link a second, never the only one into a
//     subnet, never that of a peer with few others, never a young one.
//
// The subject of all this is a kept link: a connection over which both sides have
// said hello. Report a dial as done only then.
//
// Read next: core.go, plan.go; then package overlay, which carries the effects
// out.
package keeper
