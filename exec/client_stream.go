package exec

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"

	"p2pnode"
)

// Events streams what happens on this host. What the ring still holds after seq
// comes first. The channel closes when the connection or ctx ends; a reader that
// falls behind finds a gap in Seq.
func (c *Client) Events(ctx context.Context, after uint64) (<-chan p2pnode.ExecEvent, error) {
	return stream[p2pnode.ExecEvent](ctx, c, "events", eventsBody{after}, clientQueue)
}

// Logs streams log lines; without Follow the channel closes after the last one.
func (c *Client) Logs(ctx context.Context, q LogQuery) (<-chan LogLine, error) {
	return stream[LogLine](ctx, c, "logs", q, clientQueue)
}

// SignedLogs hands over a manager's order to read logs, see SignAct, and streams the
// answer, sealed for him. The node process's client only.
func (c *Client) SignedLogs(ctx context.Context, envelope []byte) (<-chan SealedLog, error) {
	return stream[SealedLog](ctx, c, "signed-logs", signedBody{envelope}, readQueue)
}

// stream opens a connection for one request with many answers, of which queue may wait
// on this side.
func stream[T any](ctx context.Context, c *Client, verb string, in any, queue int) (<-chan T, error) {
	conn, err := connect(ctx, c.dir, c.role)
	if err != nil {
		return nil, err
	}
	if err := conn.write(message{ID: 2, Verb: verb, Body: body(in)}); err != nil {
		conn.close()
		return nil, unreachable(c.dir, err)
	}
	first, _, err := conn.read() // accepted or refused
	if err != nil {
		conn.close()
		return nil, unreachable(c.dir, err)
	}
	if first.Error != nil {
		conn.close()
		return nil, first.Error
	}
	out := make(chan T, queue)
	stop := context.AfterFunc(ctx, func() { conn.close() })
	go func() { // ends with the connection or ctx
		defer close(out)
		defer stop()
		defer conn.close()
		for {
			m, _, err := conn.read()
			if err != nil || !m.More {
				return
			}
			var v T
			if json.Unmarshal(m.Body, &v) != nil {
				return
			}
			select {
			case out <- v:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// ServeKeeper makes k this host's keeper until exec or ctx ends. Only the door may.
// It returns nil when exec went away: k then holds what services write until the
// next call.
func (c *Client) ServeKeeper(ctx context.Context, k Keeper) error {
	conn, err := connect(ctx, c.dir, c.role)
	if err != nil {
		return err
	}
	defer conn.dropFDs()
	defer conn.close()
	stop := context.AfterFunc(ctx, func() { conn.close() })
	defer stop()
	held := k.Held()
	if err := conn.write(message{ID: 2, Verb: "keeper", Body: body(len(held))}); err != nil {
		return unreachable(c.dir, err)
	}
	for _, h := range held {
		head := keptHead{h.Service, h.Incarnation, h.PID}
		if err := conn.write(message{ID: 2, Verb: "held", Body: body(head)}, h.FIFO, h.Pidfd); err != nil {
			return unreachable(c.dir, err)
		}
	}
	for {
		m, files, err := conn.read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if m.Error != nil {
			return m.Error
		}
		keeperDuty(k, m, files)
	}
}

// keeperDuty carries out one message of exec.
func keeperDuty(k Keeper, m message, files []*os.File) {
	switch m.Verb {
	case "keep":
		var head keptHead
		if len(files) == 2 && json.Unmarshal(m.Body, &head) == nil {
			k.Keep(Kept{head.Service, head.Incarnation, head.PID, files[0], files[1]})
			return
		}
	case "drop":
		var service string
		if json.Unmarshal(m.Body, &service) == nil {
			k.Drop(service)
		}
	case "spread":
		var life p2pnode.Life
		if json.Unmarshal(m.Body, &life) == nil {
			k.Spread(life)
		}
	}
	for _, f := range files {
		f.Close()
	}
}
