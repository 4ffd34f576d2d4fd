// Package exec is the execution service of one host: the first process of
// p2pnode, the owner of its services, of the node process and of the door.
//
// It promises:
//
//   - At most one copy of a service runs, also when exec is killed between fork
//     and record. Nothing is started while any witness says that a copy lives.
//   - It believes nobody. Recover is a hint; exec acts on what it saw itself, by
//     compare-and-set on the incarnation that the caller names, and the same
//     restart policy holds for agents, for its own fallback and after a reload.
//   - It never gives up on a service and never restarts one that a person
//     stopped, put into maintenance or asked only to observe.
//   - Children outlive it: they have their own sessions, their output goes to a
//     FIFO that the door holds too, and a new exec adopts them.
//   - The disk is not in its hot path: it starts first and persists beside it.
//
// The policy (policy*.go) is a pure state machine: step(now, event) returns
// effects, time is an argument, and its tests feed it thousands of random event
// queues. One goroutine (run.go) owns it; everything else sends that goroutine
// events and carries out effects. Processes are real ones in the tests: the test
// binary runs itself again as exec, as a role and as the services.
//
// Linux only: pidfds, open-file-description locks, FIFOs, /proc.
//
// Read next: policy.go for what is decided, start.go and evidence.go for how one
// copy is kept one, client.go for what others may ask.
package exec
