// Package chaos runs p2pnode hosts in Docker containers on a private network and
// breaks them at random: processes, containers, the network, the disk.
//
// What it promises: the schedule follows from its seed alone (Plan), so that a bad
// run can be played again with SEED; every fault is proved from outside before its
// repair counts; the verdict is taken from outside too: pids in the host's own
// /proc, ledgers that the victims write to a mounted folder, answers of services
// asked in their own network namespace, and what the nodes wrote down (--history),
// judged by the offline checker. Nothing is left behind, also when the test is
// killed: a janitor process of its own session sweeps when its pipe closes.
//
// It wants root and Docker Engine >= 20.10; the image is built FROM scratch.
//
//	make chaos                       # 2 min
//	make soak SEED=7 DURATION=2h
//
// Read next: plan.go (what is broken when), faults.go (how), judge.go (what must
// hold).
package chaos
