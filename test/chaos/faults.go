package chaos

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"p2pnode"
	"p2pnode/test/history"
	"p2pnode/test/host"
)

// Within these times a fault must be repaired. They are far above what is usual:
// the figures are printed, this is where a repair counts as missing.
const (
	serviceBack = 5 * time.Second
	roleBack    = 10 * time.Second
	boxBack     = 15 * time.Second
	thawed      = 2 * time.Second
	healed      = 30 * time.Second // links, and then 13 s for whom a witness was paused meanwhile: it saw flaps, and damps them
)

// play makes the faults of a schedule, each when its time has come and its
// container is free, and returns when the last one is over.
func (f *Fleet) play(plan []Fault) {
	began := time.Now()
	var wg sync.WaitGroup
	for _, fault := range plan {
		time.Sleep(time.Until(began.Add(fault.At)))
		f.t.Log(fault)
		if fault.Kind == KillFleet {
			wg.Wait()
			f.killFleet(fault)
			continue
		}
		b := f.boxes[fault.Box]
		b.fault.Lock()
		wg.Go(func() {
			defer b.fault.Unlock()
			b.suffer(fault)
		})
	}
	wg.Wait()
}

// suffer makes one fault and sees it through.
func (b *Box) suffer(f Fault) {
	switch f.Kind {
	case KillService:
		b.killService(f.Kind, services[f.Service])
	case KillNode:
		b.killRole(f.Kind, p2pnode.SelfNode, p2pnode.ClassProcessDead)
	case KillDoor:
		b.killRole(f.Kind, p2pnode.SelfDoor, p2pnode.ClassSignalled)
	case KillAll:
		b.killAll()
	case KillBox:
		b.killBox(f.For)
	case Pause:
		b.freeze(f.For)
	case Cut:
		b.cut(f.For)
	case FillDisk:
		b.fillDisk(services[f.Service], f.For)
	}
}

// note writes a fault into the harness's history before it is made.
func (b *Box) note(service string, class p2pnode.Class, pid int, reason string) {
	b.fleet.harness.Record(p2pnode.HistoryEvent{Event: p2pnode.HistFault, Target: b.Name, Service: service, Class: class, PID: pid, Reason: reason})
}

func (b *Box) healed(service string) {
	b.fleet.harness.Record(p2pnode.HistoryEvent{Event: p2pnode.HistHealed, Target: b.Name, Service: service})
}

// one is the pid of what; none or several are a violation.
func (b *Box) one(what string) int {
	var pids []int
	if host.Eventually(2*time.Second, func() bool { pids = b.find(what); return len(pids) == 1 }) {
		return pids[0]
	}
	b.fleet.violation("%s: %d processes of %s run: %v", b.Name, len(pids), what, pids)
	return 0
}

// kill sends SIGKILL and proves from outside that the process is gone.
func (b *Box) kill(what string, class p2pnode.Class, pid int) bool {
	start := host.StartTicks(pid)
	b.note(what, class, pid, "")
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		b.fleet.violation("harness: cannot kill %s of %s: %v", what, b.Name, err)
		return false
	}
	if !host.Eventually(2*time.Second, func() bool { return !host.Running(pid, start) }) {
		b.fleet.violation("harness: %s of %s outlived its SIGKILL", what, b.Name)
		return false
	}
	return true
}

// killService ends a service; it must answer again, as another process.
func (b *Box) killService(k Kind, service string) {
	pid := b.one(service)
	if pid == 0 {
		return
	}
	ask := inNamespace(firstPort + slices.Index(services, service))
	defer close(ask)
	old := b.inside(pid)
	began := time.Now()
	if !b.kill(service, p2pnode.ClassSignalled, pid) {
		return
	}
	b.back(k, service, began, serviceBack, func() bool {
		reply := make(chan int, 1)
		ask <- question{b.PID(), reply}
		now := <-reply
		return now != 0 && now != old
	})
}

// inside is a pid in its container's own numbers.
func (b *Box) inside(pid int) int {
	raw, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return nsPID(string(raw))
}

// back waits until something is well again and files how long that took.
func (b *Box) back(k Kind, what string, began time.Time, within time.Duration, well func() bool) bool {
	if !host.Eventually(within, well) {
		b.fleet.violation("%s: %s is not back %v after %s", b.Name, what, within, k)
		return false
	}
	b.fleet.repaired(k, time.Since(began))
	b.healed(what)
	return true
}

// killRole ends the node process or the door; another one must run and listen.
func (b *Box) killRole(k Kind, role string, class p2pnode.Class) {
	before := b.pids(services...)
	pid := b.one(role)
	if pid == 0 {
		return
	}
	began := time.Now()
	if !b.kill(role, class, pid) {
		return
	}
	b.back(k, role, began, roleBack, func() bool {
		now := b.find(role)
		return len(now) == 1 && now[0] != pid && b.listens(role)
	})
	b.untouched(k, before)
}

// pids are the processes of things, by name.
func (b *Box) pids(what ...string) map[string][]int {
	out := map[string][]int{}
	for _, w := range what {
		out[w] = b.find(w)
	}
	return out
}

// untouched demands that the same processes run as before.
func (b *Box) untouched(k Kind, before map[string][]int) {
	for _, what := range slices.Sorted(maps.Keys(before)) {
		if now := b.find(what); !slices.Equal(now, before[what]) {
			b.fleet.violation("%s: %s, which a fault of kind %s did not touch, was %v and is %v", b.Name, what, k, before[what], now)
		}
	}
}

// killAll ends everything that exec has started, at once.
func (b *Box) killAll() {
	everything := append([]string{p2pnode.SelfDoor, p2pnode.SelfNode}, services...)
	old := map[string]int{}
	for _, what := range everything {
		if old[what] = b.one(what); old[what] == 0 {
			return
		}
	}
	for _, what := range everything {
		class := p2pnode.ClassSignalled
		if what == p2pnode.SelfNode {
			class = p2pnode.ClassProcessDead
		}
		b.note(what, class, old[what], "")
	}
	began := time.Now()
	for _, pid := range old {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	b.back(KillAll, "everything", began, roleBack, func() bool {
		for what, pid := range old {
			if now := b.find(what); len(now) != 1 || now[0] == pid {
				return false
			}
		}
		return b.listens(p2pnode.SelfNode) && b.listens(p2pnode.SelfDoor)
	})
	for _, what := range everything {
		b.healed(what)
	}
}

// killBox kills the container, exec first of all, and starts it after a while.
func (b *Box) killBox(down time.Duration) {
	if b.die() {
		time.Sleep(down)
		b.rise(KillBox)
	}
}

// die kills the container and writes down what died with it: nobody in there can.
func (b *Box) die() bool {
	pid := b.PID()
	start := host.StartTicks(pid)
	b.note("", p2pnode.ClassUnreachable, pid, "")
	b.down()
	if _, err := docker("kill", b.container); err != nil {
		b.fleet.violation("harness: %v", err)
		return false
	}
	if !host.Eventually(5*time.Second, func() bool { return !host.Running(pid, start) }) {
		b.fleet.violation("harness: exec of %s outlived docker kill", b.Name)
		return false
	}
	for _, what := range append([]string{p2pnode.SelfDoor, p2pnode.SelfNode}, services...) {
		b.fleet.harness.Record(p2pnode.HistoryEvent{Node: b.Name, Event: p2pnode.HistEnded, Service: what, Class: p2pnode.ClassSignalled, Detail: "its container was killed"})
	}
	return true
}

// rise starts the container; all its services must answer, and the node listen.
func (b *Box) rise(k Kind) {
	began := time.Now()
	_, err := docker("start", b.container)
	if err == nil {
		err = b.started()
	}
	if err != nil {
		b.fleet.violation("harness: %v", err)
		return
	}
	b.back(k, "everything", began, boxBack, func() bool {
		for _, p := range b.probers {
			if _, at := p.last(); at.Before(began) {
				return false
			}
		}
		return b.listens(p2pnode.SelfNode) && b.listens(p2pnode.SelfDoor)
	})
}

// killFleet kills all containers at once and starts them again.
func (f *Fleet) killFleet(fault Fault) {
	var wg sync.WaitGroup
	from := time.Now()
	for _, b := range f.boxes {
		wg.Go(func() { b.die() })
	}
	wg.Wait()
	f.fleetDead = append(f.fleetDead, span{from, time.Now()})
	time.Sleep(fault.For)
	began := time.Now()
	for _, b := range f.boxes {
		wg.Go(func() { b.rise(KillFleet) })
	}
	wg.Wait()
	if !host.Eventually(30*time.Second, f.allAlive) {
		f.violation("no one view 30 s after the whole fleet was killed and started")
		return
	}
	f.views = append(f.views, time.Since(began))
}

// freeze pauses the container: every timer in it is late at once.
func (b *Box) freeze(length time.Duration) {
	before := b.pids(append([]string{p2pnode.SelfNode, p2pnode.SelfDoor}, services...)...)
	b.note("", p2pnode.ClassFrozen, b.PID(), "")
	b.pause(true)
	if _, err := docker("pause", b.container); err != nil {
		b.fleet.violation("harness: %v", err)
	}
	time.Sleep(length)
	if _, err := docker("unpause", b.container); err != nil {
		b.fleet.violation("harness: %v", err)
		return
	}
	b.pause(false)
	b.back(Pause, "everything", time.Now(), thawed, b.allAnswer)
	b.healed("")
	time.Sleep(thawed) // whoever restarts a thawed process does it now
	b.untouched(Pause, before)
}

// allAnswer reports whether every service has answered within the last moments.
func (b *Box) allAnswer() bool {
	for _, p := range b.probers {
		if _, at := p.last(); time.Since(at) > 2*probeTimeout {
			return false
		}
	}
	return true
}

// cut takes the network away, and gives it back with another address.
func (b *Box) cut(length time.Duration) {
	f := b.fleet
	before := b.pids(append([]string{p2pnode.SelfNode, p2pnode.SelfDoor}, services...)...)
	b.note("", p2pnode.ClassUnreachable, 0, history.Cut)
	b.cutOffIs(true)
	if _, err := docker("network", "disconnect", f.run, b.container); err != nil {
		f.violation("harness: %v", err)
		return
	}
	time.Sleep(length)
	if _, err := docker("network", "connect", "--ip", f.newAddr(), "--alias", b.Name, f.run, b.container); err != nil {
		f.violation("harness: %v", err)
		return
	}
	b.cutOffIs(false)
	b.back(Cut, "its place in the fleet", time.Now(), healed, b.amongOthers)
	b.untouched(Cut, before)
}

// fillDisk fills the data folder's file system and kills a service meanwhile:
// supervision does not need the disk.
func (b *Box) fillDisk(service string, length time.Duration) {
	filler := filepath.Join(b.data, "filler")
	before := b.pids(append([]string{p2pnode.SelfNode, p2pnode.SelfDoor}, services...)...)
	delete(before, service)
	if err := fill(filler); err != nil {
		b.fleet.violation("harness: cannot fill the disk of %s: %v", b.Name, err)
		return
	}
	time.Sleep(length / 2)
	b.killService(FillDisk, service)
	time.Sleep(length / 2)
	os.Remove(filler)
	b.untouched(FillDisk, before)
}

// fill writes until there is no room; that there is none any more is the proof.
func fill(path string) error {
	w, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer w.Close()
	for size := 1 << 20; size > 0; {
		if _, err := w.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			return err
		}
	}
	return nil
}

// listens reports whether a role of this container accepts connections.
func (b *Box) listens(role string) bool {
	port := 7744
	if role == p2pnode.SelfDoor {
		port = 7745
	}
	return accepts(b.PID(), port)
}
