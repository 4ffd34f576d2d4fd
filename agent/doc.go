// Package agent is the roaming recovery agent of p2pnode: code that every node
// has, and a small state that travels from node to node and is wherever the work
// is.
//
// A patrol goes round and looks for what has failed unseen. When a verdict says
// that a node process is dead or hung, the agent nearest to it claims the
// failure, travels hop by hop along the routing table to a neighbour of the
// target, knocks at its door, has its exec look and act, reports, waits until
// the repair has held, and reports that. What fails on this host itself is the
// resident agent's: zero hops, one request to the own exec.
//
// Promises:
//
//   - The decision runs in the process that holds the agent. A sender keeps what
//     it sent until the ACK or the deadline, and after an ACK nothing of it.
//   - Whatever dies, a mission goes on: a claim lapses after 300 ms without an
//     extension, and the next rank takes attempt + 1. A carrier that is lost
//     after the act leaves a claim that says so, and its successor only verifies.
//   - Nothing here decides that something is dead. Verdicts send an agent on its
//     way, the door's word lets it ask, and exec looks for itself: its
//     compare-and-set is what makes any number of agents have one effect.
//   - An agent carries names and numbers: never a command, a path or a secret.
//   - Inputs enqueue and return; queues and tables are bounded (limits.go), what
//     does not fit is dropped and counted by reason.
//
// To test it, drive the core with events and a clock of your own, as the tests
// do for whole fleets; or run several Agents in a synctest bubble.
//
// Read next: core.go for the machine, claims.go for who goes, mission.go for
// what is decided on the spot, agentpb/agent.proto for the wire.
package agent
