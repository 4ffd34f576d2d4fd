package exec

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"p2pnode"
)

// An upgrade puts a new binary under running services. The order:
//
//	look      a copy of FILE, beside the installed binary, reads state and configuration
//	install   the binary that runs is kept as .prev, the copy takes the installed one's name
//	@exec     waits until nothing is starting or stopping, hands everything over, execve
//	@door     restarted from the new binary
//	@node     restarted from the new binary
//
// Each of the three must live for the settling time before the next one is
// replaced. Whoever does not brings the old binary back: exec itself where door or
// node process fail, a guard (still the old binary) where exec does.

// stateFormat is what a binary must be able to read to take this one's place: the
// state folder and the hand-over of an execve.
const stateFormat = 1

// upgrade is the verb.
func (ss *session) upgrade(raw json.RawMessage) (any, error) {
	if err := ss.only(RoleCLI); err != nil {
		return nil, err
	}
	req, err := decode[UpgradeRequest](raw)
	if err != nil {
		return nil, err
	}
	r := ss.r
	if !r.upgrading.CompareAndSwap(false, true) {
		return nil, &p2pnode.Error{Code: "upgrade-running", Text: "an upgrade is under way", Fix: "wait for it: p2pnode upgrade again when it is through"}
	}
	begun := false
	defer func() {
		if !begun {
			r.upgrading.Store(false)
		}
	}()
	in, plan, err := r.lookAtBinary(ss.ctx, req)
	if err != nil {
		return nil, err
	}
	defer in.discard()
	if plan.Same || req.DryRun {
		return plan, nil
	}
	if err := in.install(); err != nil {
		return nil, err
	}
	u := p2pnode.Upgrade{
		State: p2pnode.UpgradeRunning, From: plan.From, To: plan.To, Target: plan.Target, Previous: plan.Previous,
		Step: p2pnode.SelfExec, BeganAt: time.Now(), Settle: req.Settle, Steps: []p2pnode.UpgradeStep{},
	}
	if u.Settle <= 0 {
		u.Settle = settleFor
	}
	if err := saveUpgrade(r.cfg.Dir, u); err != nil {
		return nil, errors.Join(err, rollBack(u))
	}
	begun, plan.BeganAt = true, u.BeganAt
	r.cfg.Log.Info().Str("from", u.From).Str("to", u.To).Str("file", u.Target).Msg("upgrade: a new binary takes this one's place")
	return afterwards{plan, func() {
		r.upgrade = &u
		r.whenQuiet(time.Now().Add(quietWait), func() { r.leaving = r.switchTo(u.Target) })
	}}, nil
}

// lookAtBinary finds out whether a file can take this binary's place.
func (r *runner) lookAtBinary(ctx context.Context, req UpgradeRequest) (*installation, p2pnode.UpgradePlan, error) {
	plan := p2pnode.UpgradePlan{From: r.cfg.Version}
	if len(r.cfg.SelfArgv) == 0 {
		return nil, plan, &p2pnode.Error{Code: "no-guard", Text: "it is not known how this p2pnode was started", Fix: "restart it by hand from the new binary"}
	}
	in, err := stage(req.File)
	if err != nil {
		return nil, plan, err
	}
	plan.Target, plan.Previous = in.target, in.previous()
	if in.same {
		plan.Same, plan.To = true, plan.From
		return in, plan, nil
	}
	began := time.Now()
	said, err := r.trial(ctx, in.staged)
	if err != nil {
		in.discard()
		return nil, plan, unfit(in.from, err)
	}
	plan.To, plan.Services, plan.Trial = said.Version, said.Services, float64(time.Since(began).Microseconds())/1000
	r.ask(func() {
		for s := range r.policy.all {
			if s.phase == running {
				plan.Running++
			}
		}
	})
	return in, plan, nil
}

func unfit(file string, err error) error {
	return &p2pnode.Error{
		Code: "unfit-binary", Text: file + " cannot take the place of this p2pnode: " + err.Error(),
		Fix: "nothing was changed; check that it is a p2pnode for this machine, of this version or a newer one",
	}
}

// trial has a binary read state and configuration of this host, and takes its word.
func (r *runner) trial(ctx context.Context, path string) (p2pnode.StateCheck, error) {
	var said p2pnode.StateCheck
	ctx, cancel := context.WithTimeout(ctx, trialFor)
	defer cancel()
	var out, talk bounded
	var err error
	// A service that was forked while the file was being written holds it for a moment.
	for again := true; again; again = errors.Is(err, syscall.ETXTBSY) && r.settle(ctx, quietLook) {
		// In exec's own session: of children in others exec takes the status itself.
		cmd := osexec.CommandContext(ctx, path, append([]string{"state-check", "--data", r.cfg.Dir, "--"}, r.cfg.SelfArgv[1:]...)...)
		cmd.WaitDelay = time.Second
		cmd.Env = guarded(os.Environ())
		cmd.Stdout, cmd.Stderr = &out, &talk
		err = cmd.Run()
	}
	if ctx.Err() != nil {
		return said, errors.New("it did not say within " + trialFor.String() + " whether it can read the state")
	}
	if err == nil || json.Valid(out.Bytes()) {
		err = json.Unmarshal(out.Bytes(), &said)
	}
	switch {
	case err != nil || said.Schema != p2pnode.Schema("state-check"):
		return said, errors.New("it does not know how to check the state (" + firstLine(talk.Bytes(), err) + ")")
	case len(said.Problems) > 0:
		return said, errors.New(strings.Join(said.Problems, "; "))
	case !slices.Contains(said.Formats, stateFormat):
		return said, errors.New("version " + said.Version + " does not read the state of this one")
	}
	known := 0
	for _, name := range r.state.names() {
		if _, ok := r.state.get(name); ok {
			known++
		}
	}
	if said.Services < known {
		return said, errors.New("version " + said.Version + " can read the state of " + strconv.Itoa(said.Services) + " of " + strconv.Itoa(known) + " processes")
	}
	return said, nil
}

func firstLine(talk []byte, err error) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(talk), []byte{'\n'})
	if len(line) == 0 && err != nil {
		return err.Error()
	}
	return strings.ToValidUTF8(string(line[:min(len(line), 200)]), "\uFFFD")
}

// bounded keeps the beginning of what a program says.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if room := maxTrialSays - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(len(p), room)])
	}
	return len(p), nil
}

// ReadFrom keeps io.Copy from going around the bound.
func (b *bounded) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{b}, r)
}

// CheckState reads the state folder of dir as an exec would, changes nothing, and
// says what it found: a binary is asked for that before it takes another one's place.
func CheckState(dir, version string) p2pnode.StateCheck {
	said := p2pnode.StateCheck{Schema: p2pnode.Schema("state-check"), Version: version, Formats: []int{stateFormat}, Problems: []string{}}
	problem := func(what string, err error) {
		if err != nil {
			said.Problems = append(said.Problems, "cannot read "+what+": "+err.Error())
		}
	}
	s := &state{dir: stateDir(dir)}
	var f epochFile
	raw, err := p2pnode.ReadRegular(filepath.Join(s.dir, "epoch.json"))
	if err == nil {
		err = json.Unmarshal(raw, &f)
	}
	if s.epoch = parseEpoch(f.Epoch); err == nil && s.epoch == 0 {
		err = errors.New("no epoch in it")
	}
	problem("the epoch", err)
	_, err = s.loadDesired()
	problem("what people want", err)
	_, err = readGuard(dir)
	problem("how it was started", err)
	for _, name := range s.names() {
		if _, ok := s.get(name); ok {
			said.Services++
		}
	}
	return said
}

// whenQuiet runs f on the loop when nothing is starting or stopping, at the latest
// at the given time. It is called on the loop.
func (r *runner) whenQuiet(latest time.Time, f func()) {
	if r.policy.shutdown.on {
		return // people come first: what they want stopped is not started by another image
	}
	busy := false
	for s := range r.policy.all {
		busy = busy || s.phase == starting || s.phase == stopping
	}
	if !busy || time.Now().After(latest) {
		f()
		return
	}
	r.wg.Go(func() {
		select {
		case <-time.After(quietLook):
			r.do(func() { r.whenQuiet(latest, f) })
		case <-r.jobs.Done():
		}
	})
}

func upgradePath(dir string) string { return filepath.Join(runDir(dir), "upgrade.json") }

func saveUpgrade(dir string, u p2pnode.Upgrade) error {
	raw, err := json.Marshal(u)
	if err != nil {
		return err
	}
	return p2pnode.WriteFile(upgradePath(dir), raw, 0o600)
}

func readUpgrade(dir string) (u p2pnode.Upgrade, err error) {
	raw, err := p2pnode.ReadRegular(upgradePath(dir))
	if err != nil {
		return u, err
	}
	return u, json.Unmarshal(raw, &u)
}
