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

// MaxMaintenance is the longest time that a service may be left alone.
const MaxMaintenance = 30 * 24 * time.Hour

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
	_, err = ss.r.maintain(b.Target, b.Until)
	return nil, err
}

func (ss *session) observe(raw json.RawMessage) (any, error) {
	b, err := decode[observeBody](raw)
	if err == nil {
		err = ss.only(RoleCLI)
	}
	if err != nil {
		return nil, err
	}
	_, err = ss.r.watchOnly(b.Target, b.On)
	return nil, err
}

// asideBy carries out a manager's order.
func (r *runner) asideBy(verb, target string, set *Aside) (VerbResult, error) {
	bad := func(why string) error {
		return &p2pnode.Error{Code: "bad-request", Text: "the order to set " + quoted(target) + " aside " + why, Exit: p2pnode.ExitUsage}
	}
	if set == nil {
		return VerbResult{}, bad("does not say on or off")
	}
	var until time.Time
	text := "acts again"
	var names []string
	var err error
	switch {
	case verb == VerbMaintain && set.On && (set.For <= 0 || set.For > MaxMaintenance):
		return VerbResult{}, bad("has no end, or one that is too far away")
	case verb == VerbMaintain:
		if text = "maintenance is over"; set.On {
			until = time.Now().Add(set.For)
			text = "maintenance until " + until.Format(time.DateTime)
		}
		names, err = r.maintain(target, until)
	default:
		if set.On {
			text = "observe only"
		}
		names, err = r.watchOnly(target, set.On)
	}
	res := VerbResult{OK: err == nil}
	for _, name := range names {
		res.Services = append(res.Services, ServiceResult{Name: name, OK: true, Text: text})
	}
	return res, err
}

// maintain leaves what target means alone until then; the zero time ends that.
func (r *runner) maintain(target string, until time.Time) ([]string, error) {
	return r.forTargets(target, func(name string) { r.step(evMaintenance{name, until}) })
}

// watchOnly makes exec only say what it would do; "" and "all" are the whole host.
func (r *runner) watchOnly(target string, on bool) ([]string, error) {
	if target != "" && target != "all" {
		return r.forTargets(target, func(name string) { r.step(evObserve{name, on}) })
	}
	if err := r.ask(func() { r.step(evObserve{"", on}) }); err != nil {
		return nil, err
	}
	return []string{"all"}, r.saved()
}

// forTargets runs f on the loop for each target and waits until that is on disk.
func (r *runner) forTargets(target string, f func(name string)) (names []string, err error) {
	var missing error
	if err := r.ask(func() {
		names, missing = r.targets(target)
		for _, name := range names {
			f(name)
		}
	}); err != nil {
		return nil, err
	}
	if missing != nil {
		return nil, missing
	}
	return names, r.saved()
}
