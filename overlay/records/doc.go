// Package records keeps and spreads the signed records of a cluster: who is
// where, who is linked with whom, who goes to whose help. It looks at no body.
//
// Core is pure: time is an argument, nothing is sent, nothing sleeps, and there
// is no lock: one goroutine owns it. It promises:
//
//   - Of (domain, signer, key) the highest sequence number counts, and of two
//     different records with one number the one with the higher hash. So records
//     may come in any order, any number of times, by any way: all nodes end up
//     with the same.
//   - Nothing enters unsigned, unsized or by a stranger. Limits are checked on the
//     bytes before anything is decoded, and each refusal is counted by reason.
//   - A record ends by the receiver's clock. What is left of its time goes along
//     when it is passed on, and what has ended is remembered for a while, so that
//     nodes do not keep a record alive by handing it to each other.
//   - The node's own numbers rise over restarts (boot number in the upper half).
//     A record of this node's key with a higher number than its own is answered
//     by publishing again above it.
//
// Records spread in two ways, each enough by itself. Flood: what is new goes to
// every link but the one it came from, urgent domains at once, others with the
// next heartbeat, in batches of bounded size; a newer version takes the place of
// one that still waits. Anti-entropy: two nodes compare 128 sums, list only the
// buckets that differ, and trade what the other lacks:
//
//	A                                  B
//	Digest ----- 128 sums ------------> Compare
//	Resolve <--- listing of buckets --- (nothing if all is equal)
//	        ---- give, want ----------> Exchange
//	TakeBatch <-- what was wanted -----
//
// A relay can shorten the time that it says is left, never lengthen it past what
// was signed; the signer's next publication repairs that.
//
// Read next: core.go, flood.go, entropy.go; then package overlay, which owns a
// Core and moves its bytes.
package records
