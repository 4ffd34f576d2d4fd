// Package manage is what a management node does beyond being a member: it makes
// incidents of reports, keeps a short memory of events, and serves the operator.
//
// Nothing here is authority. Any node folds the same reports to the same
// incidents, so a manager can die at any time and another one, also one that is
// promoted later, tells the same story. What changes the cluster (launch, token,
// promote) is signed by the overlay with this node's certificate and refused by
// everybody else if that is not a manager's; this package only says so early and
// in a sentence.
//
// Promises: Fold is pure, and the order of its reports does not matter. Events
// carry sequence numbers; a reader that is too slow is told of the gap. The socket
// serves its owner and root, nobody else.
//
// Read next: fold.go, then api.go for the verbs, server.go and client.go for the
// wire.
package manage
