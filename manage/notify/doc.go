// Package notify tells somebody outside p2pnode: a local program gets a notice as
// JSON on its stdin, a webhook as the body of a POST, when an incident is opened,
// recovered or given up, when the brake goes on or off, and when this host is
// degraded.
//
// It promises never to be in the way: Incident and Brake return at once, every queue
// is bounded, what does not fit is dropped and counted. A notice that cannot be
// delivered is tried again with growing pauses for ten minutes. One story is told in
// few words: opened once, and of recovered and failed only what holds, at most once a
// minute each, however often a thing fails in a row.
//
// Only what this host's own configuration declares is ever run; what came over the
// network is in the notice, as data.
//
// Read next: core.go for what is worth telling, run.go for how it is delivered.
package notify
