package exec

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A ring comes at its moment, once, whatever was set before.
func TestTheAlarmRingsAtItsMoment(t *testing.T) {
	a, err := newAlarm()
	if err != nil {
		t.Fatal(err)
	}
	defer a.close()
	rings := func(within time.Duration) bool {
		select {
		case <-a.rings:
			a.rang()
			return true
		case <-time.After(within):
			return false
		}
	}
	began := time.Now()
	a.set(began.Add(time.Hour))
	a.set(began.Add(50 * time.Millisecond))
	if !rings(10*time.Second) || time.Since(began) < 50*time.Millisecond {
		t.Errorf("brought forward: rang after %v", time.Since(began))
	}
	if rings(100 * time.Millisecond) {
		t.Error("it rang twice")
	}
	past := time.Now().Add(-time.Second)
	for range 2 { // the same moment counts again when it has rung
		if a.set(past); !rings(10 * time.Second) {
			t.Error("a moment that is over does not ring")
		}
	}
	wall := time.Now().Add(100 * time.Millisecond).Round(0)
	a.set(wall)
	a.conn.Control(func(fd uintptr) { unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{}, nil) }) // it would be late
	if a.set(wall); !rings(10 * time.Second) {
		t.Error("a moment by the wall clock is not set again")
	}
	a.set(time.Now().Add(2 * time.Second))
	a.set(time.Now().Add(time.Hour))
	a.set(time.Time{})
	if rings(2500 * time.Millisecond) {
		t.Error("put off and rang")
	}
}
