package door

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
	"p2pnode/exec"
)

// recoverExec brings exec itself back: the door looks at exec's lock, nobody's
// word is taken.
func (s *server) recoverExec(ctx context.Context, caller peer.ID, req p2pnode.RecoverRequest) p2pnode.RecoverAnswer {
	looked := time.Now()
	if alive, pid := exec.ExecAlive(s.cfg.Dir); alive {
		return p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeRefused, Reason: p2pnode.RefusedHealthy, PID: pid}
	}
	if s.startExec(ctx) == nil {
		return p2pnode.RecoverAnswer{Outcome: p2pnode.OutcomeRefused, Reason: p2pnode.RefusedExecDead}
	}
	_, pid := exec.ExecAlive(s.cfg.Dir)
	return p2pnode.RecoverAnswer{
		Outcome: p2pnode.OutcomeDone, PID: pid, Class: p2pnode.ClassExecDead,
		By:         p2pnode.By{Kind: p2pnode.ByAgent, Agent: req.Agent, Node: caller.String()},
		VerifiedAt: looked, StartedAt: time.Now(),
	}
}

// startExec starts an exec where none lives and waits until it can be asked; nil
// if that does not come in time.
func (s *server) startExec(ctx context.Context) *exec.Client {
	if alive, _ := exec.ExecAlive(s.cfg.Dir); !alive {
		if err := exec.StartDetached(s.cfg.Dir, s.cfg.Leash, time.Time{}); err != nil {
			s.cfg.Log.Error().Err(err).Msg("cannot start exec")
			return nil
		}
	}
	for deadline := time.Now().Add(holdForExec); time.Now().Before(deadline); {
		if c := s.client(); c != nil {
			return c
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
	return s.client()
}

func (s *server) client() *exec.Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.exec
}

// keepExec holds a connection to exec's control socket, again and again.
func (s *server) keepExec(ctx context.Context) {
	for ctx.Err() == nil {
		c, err := exec.Dial(ctx, s.cfg.Dir, exec.RoleDoor)
		if err == nil {
			s.setExec(c)
			s.tellRefused(ctx, c)
			s.setExec(nil)
			c.Close()
			continue
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// tellRefused tells exec of this door's refusals, until one of the two ends: nobody
// else can ask the door.
func (s *server) tellRefused(ctx context.Context, c *exec.Client) {
	for {
		if err := c.DoorRefused(ctx, s.count.all()); err != nil {
			s.cfg.Log.Debug().Err(err).Msg("exec was not told what was refused")
		}
		select {
		case <-c.Done():
			return
		case <-ctx.Done():
			return
		case <-s.count.more:
		}
		select {
		case <-c.Done():
			return
		case <-ctx.Done():
			return
		case <-time.After(tellEvery):
		}
	}
}

func (s *server) setExec(c *exec.Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exec = c
	if c != nil {
		select {
		case s.came <- struct{}{}:
		default:
		}
	}
}

// keep serves exec as its keeper, and reads the services' output while exec is
// away.
func (s *server) keep(ctx context.Context) {
	for ctx.Err() == nil {
		if c := s.client(); c != nil {
			if err := c.ServeKeeper(ctx, s.keeper); err != nil && ctx.Err() == nil {
				s.cfg.Log.Debug().Err(err).Msg("keeper connection ended")
			}
		}
		// Only a dead exec is stood in for: two readers would share out the bytes.
		if alive, _ := exec.ExecAlive(s.cfg.Dir); !alive {
			s.keeper.away()
		}
		select {
		case <-ctx.Done():
		case <-s.came: // at once: until exec has its keeper, a kill of it loses output
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// nextLife reports whether the node process runs again after the end of life.
func (s *server) nextLife(life p2pnode.Life) bool {
	c := s.client()
	if c == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	st, err := c.Status(ctx)
	return err == nil && st.NodeLife != life && !st.NodeLife.IsZero()
}
