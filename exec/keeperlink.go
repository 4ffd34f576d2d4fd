package exec

import (
	"context"
	"sync"
	"time"

	"p2pnode"
)

// keeperLink is exec's side of the connection to the keeper. What is to be kept is
// remembered, so that a door that comes back is given everything again.
type keeperLink struct {
	mu     sync.Mutex
	conn   *frameConn
	kept   map[string]Kept // duplicates of ours, for a new door
	held   map[string]Kept // what an adopted door gave back
	gotAll chan struct{}   // closed when it has
	unsent p2pnode.Life    // ended while no door was there to spread it
}

// keep hands duplicates to the keeper; the files stay the caller's.
func (l *keeperLink) keep(k Kept) {
	fifo, err := dupFile(k.FIFO)
	if err != nil {
		return
	}
	pidfd, err := dupFile(k.Pidfd)
	if err != nil {
		fifo.Close()
		return
	}
	k.FIFO, k.Pidfd = fifo, pidfd
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked(k.Service)
	if l.kept == nil {
		l.kept = map[string]Kept{}
	}
	l.kept[k.Service] = k
	l.sendLocked(k)
}

func (l *keeperLink) sendLocked(k Kept) {
	if l.conn == nil {
		return
	}
	// A door that does not read must not hold up a start: it is cut off instead.
	l.conn.conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	if err := l.conn.write(message{Verb: "keep", Body: body(keptHead{k.Service, k.Incarnation, k.PID})}, k.FIFO, k.Pidfd); err != nil {
		l.conn.close()
		l.conn = nil
	}
}

func (l *keeperLink) dropLocked(service string) {
	if k, ok := l.kept[service]; ok {
		k.FIFO.Close()
		k.Pidfd.Close()
		delete(l.kept, service)
	}
}

func (l *keeperLink) drop(service string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked(service)
	l.tellLocked("drop", service)
}

func (l *keeperLink) spread(life p2pnode.Life) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		l.unsent = life
		return
	}
	l.tellLocked("spread", life)
}

func (l *keeperLink) tellLocked(verb string, v any) {
	if l.conn == nil {
		return
	}
	l.conn.conn.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	if err := l.conn.write(message{Verb: verb, Body: body(v)}); err != nil {
		l.conn.close()
		l.conn = nil
	}
}

// expect makes waitHeld wait for a living door.
func (l *keeperLink) expect() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gotAll = make(chan struct{})
}

// attach makes conn the keeper's connection, after it gave back what it held, and
// hands over what it does not have.
func (l *keeperLink) attach(conn *frameConn, held map[string]Kept) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn = conn
	if l.gotAll != nil && l.held == nil {
		l.held = held
		close(l.gotAll)
	} else {
		for _, k := range held {
			k.FIFO.Close()
			k.Pidfd.Close()
		}
	}
	if !l.unsent.IsZero() {
		l.tellLocked("spread", l.unsent)
		l.unsent = p2pnode.Life{}
	}
	for _, name := range sortedKeys(l.kept) {
		k := l.kept[name]
		if h, ok := held[name]; !ok || h.Incarnation != k.Incarnation || h.PID != k.PID { // of one life first its output, then its process
			l.sendLocked(k)
		}
	}
}

func (l *keeperLink) detach(conn *frameConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == conn {
		l.conn = nil
	}
}

// waitHeld returns what the adopted keeper holds, or nothing after d.
func (l *keeperLink) waitHeld(ctx context.Context, d time.Duration) map[string]Kept {
	l.mu.Lock()
	got := l.gotAll
	l.mu.Unlock()
	if got == nil {
		return nil
	}
	select {
	case <-got:
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.held
	case <-time.After(d):
	case <-ctx.Done():
	}
	return nil
}
