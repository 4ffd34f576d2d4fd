package node

import (
	"context"
	"sync/atomic"
)

// late is a value that comes into being once, after those who ask for it.
type late[T any] struct {
	value *atomic.Pointer[T]
	ready chan struct{}
}

func newLate[T any]() late[T] {
	return late[T]{value: new(atomic.Pointer[T]), ready: make(chan struct{})}
}

// set gives the value; once only.
func (l late[T]) set(v T) {
	l.value.Store(&v)
	close(l.ready)
}

// get is the value, if it is there.
func (l late[T]) get() (v T, ok bool) {
	p := l.value.Load()
	if p == nil {
		return v, false
	}
	return *p, true
}

// wait is the value; ok is false if ctx ended first.
func (l late[T]) wait(ctx context.Context) (v T, ok bool) {
	select {
	case <-l.ready:
		return l.get()
	case <-ctx.Done():
		return v, false
	}
}
