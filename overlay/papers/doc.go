// Package papers is what makes a node a member: the cluster's identity on disk,
// founding, tokens, and the decision whether a stranger is let in.
//
// It promises:
//
//   - A folder holds the papers of one cluster. They are written as a whole and
//     last, so that a crash while founding or joining leaves a node without a
//     cluster, never half of one.
//   - The secret of a token never travels. It makes a key, the joiner proves that
//     key over its own ID and the cluster that the token pins: whoever passes the
//     request on, or overhears it, can use it for nothing.
//   - A request is signed by the joiner, secrets in the answer are sealed to a key
//     in that request: a member that relays both learns no more than it knows.
//   - An answer is believed only if its certificate is for this node's key and,
//     with a token, of the cluster that the token pins.
//   - Nothing here opens a connection or reads a clock; files are read and written
//     where a function takes a folder.
//
// Sizes are checked before decoding; see limits.go.
//
// Read next: admit.go for the decision, token.go, cluster.go for the files;
// package overlay for how requests travel.
package papers
