// Package door is a host's network face beside the node process, and the keeper
// of what must outlive exec.
//
// The door answers while the node process is dead. It speaks TLS 1.3 with mutual
// certificates of the cluster and three verbs: status, recover, notice. It acts on
// nothing by itself: a recover is handed to exec with the identity that the
// handshake proved, and exec looks for itself. A flood of strangers hits this
// process, never exec.
//
// It promises:
//
//   - Nothing is decoded before the handshake proved a certificate of the cluster;
//     every frame is bounded; every refusal is counted with a reason.
//   - At most 16 connections; when full, one is dropped that is beyond the first four
//     of its node or has not proved itself, of the silent ones and of those that have
//     begun a handshake the oldest of whichever there are more.
//   - While exec is away, a service's output is read into logs/SVC.away, so that no
//     service blocks on a full pipe; it is given back when exec is there again.
//   - With exec dead, a recover starts exec and waits for it for at most a second.
//
// Tests run it on loopback with real processes behind it.
//
// Read next: server.go, execlink.go, keeper.go, knock.go.
package door
