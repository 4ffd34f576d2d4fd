package exec

import (
	"encoding/json"
	"time"

	"p2pnode"
)

// What a person sets aside, for a time or until further notice, nobody repairs: not
// agents, not exec. He says so on the host, or, as a manager, from another one.

// The verbs for that.
const (
	VerbMaintain = "maintenance"
	VerbObserve  = "observe"
)

// Aside is what maintenance or observe sets on another host: that counts the time by
// its own clock.
type Aside struct {
	On  bool          `json:"on"`
	For time.Duration `json:"for,omitempty"` // maintenance
}

func (ss *session) maintenance(raw json.RawMessage) (any, error) {
	b, err := decode[maintenanceBody](raw)
	if err == nil {
		err = ss.only(RoleCLI)
	}
	if err != nil {
		return nil, err
	}
	return nil, ss.r.maintain(b.Target, b.Until)
}

func (ss *session) observe(raw json.RawMessage) (any, error) {
	b, err := decode[observeBody](raw)
	if err == nil {
		err = ss.only(RoleCLI)
	}
	if err != nil {
		return nil, err
	}
	return nil, ss.r.watchOnly(b.Target, b.On)
}

// asideBy carries out a manager's order.
func (r *runner) asideBy(verb, target string, set *Aside) error {
	bad := func(why string) error {
		return &p2pnode.Error{Code: "bad-request", Text: "the order to set " + quoted(target) + " aside " + why, Exit: p2pnode.ExitUsage}
	}
	switch {
	case set == nil:
		return bad("does not say on or off")
	case verb == VerbObserve:
		return r.watchOnly(target, set.On)
	case !set.On:
		return r.maintain(target, time.Time{})
	case set.For <= 0 || set.For > MaxMaintenance:
		return bad("has no end, or one that is too far away")
	}
	return r.maintain(target, time.Now().Add(set.For))
}

// maintain leaves what target means alone until then; the zero time ends that.
func (r *runner) maintain(target string, until time.Time) error {
	return r.forTargets(target, func(name string) { r.step(evMaintenance{name, until}) })
}

// watchOnly makes exec only say what it would do; "" and "all" are the whole host.
func (r *runner) watchOnly(target string, on bool) error {
	if target != "" && target != "all" {
		return r.forTargets(target, func(name string) { r.step(evObserve{name, on}) })
	}
	if err := r.ask(func() {
		if plantLoopAsksItself {
			r.ask(func() {}) // it waits for itself
		}
		r.step(evObserve{"", on})
	}); err != nil {
		return err
	}
	return r.saved()
}

// forTargets runs f on the loop for each target and waits until that is on disk.
func (r *runner) forTargets(target string, f func(name string)) error {
	var missing error
	if err := r.ask(func() {
		names, err := r.targets(target)
		missing = err
		for _, name := range names {
			f(name)
		}
	}); err != nil {
		return err
	}
	if missing != nil {
		return missing
	}
	return r.saved()
}
