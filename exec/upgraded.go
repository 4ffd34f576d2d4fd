package exec

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"p2pnode"
)

// recallUpgrade reads how far an upgrade is. It runs before anything is adopted.
func (r *runner) recallUpgrade() {
	u, err := readUpgrade(r.cfg.Dir)
	if err != nil {
		return // none, or of no use
	}
	r.upgrade = &u
	r.upgrading.Store(u.State == p2pnode.UpgradeRunning)
	if u.State == p2pnode.UpgradeFailed {
		r.degraded.set("upgrade", errors.New(u.Text))
		r.cfg.Log.Error().Str("to", u.To).Str("detail", u.Text).Msg("upgrade failed")
	}
}

// goOnUpgrading is the new image's part of an upgrade: it lives for the settling
// time, then replaces door and node process. After a failure it is the old image's,
// which replaces them back.
func (r *runner) goOnUpgrading(ctx context.Context) {
	var u p2pnode.Upgrade
	if r.ask(func() {
		if r.upgrade != nil {
			u = *r.upgrade
		}
	}) != nil || u.State != p2pnode.UpgradeRunning {
		return
	}
	defer r.upgrading.Store(false)
	if r.handed == nil && !u.Back && !isInstalled(u.Target) {
		r.endUpgrade(u, "exec died of the new binary: this is another one")
		return
	}
	if r.handed != nil {
		u.Steps = append(u.Steps, p2pnode.UpgradeStep{Name: p2pnode.SelfExec, OldPID: os.Getpid(), PID: os.Getpid(), TookMS: ms(time.Since(r.handed.left))})
		r.noteUpgrade(u)
	}
	if !u.Back && !r.settle(ctx, u.Settle) {
		return
	}
	reached := u.Step // when it failed: what comes after was not replaced
	for _, name := range []string{p2pnode.SelfDoor, p2pnode.SelfNode} {
		if u.Back && (reached == p2pnode.SelfExec || reached == p2pnode.SelfDoor && name == p2pnode.SelfNode) {
			continue
		}
		if !u.Back {
			u.Step = name
			r.noteUpgrade(u)
		}
		step, err := r.replaceRole(ctx, name, u.Settle)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if step.PID != 0 {
				u.Steps = append(u.Steps, step)
				r.noteUpgrade(u)
			}
			continue
		}
		if !u.Back {
			r.goBack(u, err)
			return
		}
		u.Text += "; " + err.Error()
	}
	r.endUpgrade(u, u.Text)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// isInstalled reports whether this process runs the file at path.
func isInstalled(path string) bool {
	self, errA := os.Stat("/proc/self/exe")
	there, errB := os.Stat(path)
	return errA == nil && errB == nil && os.SameFile(self, there)
}

func (r *runner) settle(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// replaceRole restarts door or node process and sees that it lives. A host without
// that process, or where somebody stopped it, has nothing to replace.
func (r *runner) replaceRole(ctx context.Context, name string, settle time.Duration) (step p2pnode.UpgradeStep, err error) {
	began := time.Now()
	w := &waiter{verb: verbRestart, names: []string{name}, from: map[string]uint64{}, done: make(chan VerbResult, 1)}
	there := false
	r.ask(func() {
		s := r.policy.svcs[name]
		if there = s != nil && !s.stopped; !there {
			return
		}
		step = p2pnode.UpgradeStep{Name: name, OldPID: s.pid}
		w.from[name] = s.inc.N
		r.step(evOrder{verb: verbRestart, name: name})
		r.waiters = append(r.waiters, w)
		r.wakeWaiters()
	})
	if !there {
		return step, nil
	}
	select {
	case res := <-w.done:
		if !res.OK {
			return step, fmt.Errorf("%s does not come up: %s", name, res.Services[0].Text)
		}
		step.PID = res.Services[0].PID
	case <-time.After(roleBack):
		r.ask(func() {
			r.waiters = slices.DeleteFunc(r.waiters, func(x *waiter) bool { return x == w })
		})
		return step, fmt.Errorf("%s was not up within %v", name, roleBack)
	case <-ctx.Done():
		return step, ctx.Err()
	}
	step.TookMS = ms(time.Since(began))
	if !r.settle(ctx, settle) {
		return step, ctx.Err()
	}
	r.ask(func() {
		if s := r.policy.svcs[name]; s == nil || s.pid != step.PID || s.state != p2pnode.StateUp {
			err = fmt.Errorf("%s did not live for %v", name, settle)
		}
	})
	return step, err
}

// goBack puts the old binary back and lets it go on.
func (r *runner) goBack(u p2pnode.Upgrade, why error) {
	u.Back, u.Text = true, why.Error()+": the old binary is back"
	r.cfg.Log.Error().Err(why).Str("to", u.To).Msg("upgrade: the new binary fails, the old one is put back")
	if err := rollBack(u); err != nil {
		r.endUpgrade(u, why.Error()+", and the old binary cannot be put back: "+err.Error())
		return
	}
	r.noteUpgrade(u)
	r.do(func() {
		r.whenQuiet(time.Now().Add(quietWait), func() { r.leaving = r.switchTo(u.Target) })
	})
}

// noteUpgrade writes down how far it is.
func (r *runner) noteUpgrade(u p2pnode.Upgrade) {
	u.Steps = slices.Clone(u.Steps)
	r.ask(func() { r.upgrade = &u })
	r.disk("upgrade", saveUpgrade(r.cfg.Dir, u))
}

// endUpgrade: it is through, or has failed for the reason given.
func (r *runner) endUpgrade(u p2pnode.Upgrade, failed string) {
	u.State, u.EndedAt, u.Text = p2pnode.UpgradeDone, time.Now(), failed
	line := r.cfg.Log.Info()
	r.degraded.set("upgrade", nil)
	if failed != "" {
		u.State = p2pnode.UpgradeFailed
		line = r.cfg.Log.Error()
		r.degraded.set("upgrade", errors.New(failed))
	}
	line.Str("from", u.From).Str("to", u.To).Str("detail", failed).Msg("upgrade " + string(u.State))
	r.noteUpgrade(u)
}
