package exec

import (
	"bytes"
	"encoding/json"

	"p2pnode"
)

// ReloadResult is what a reload did, or would do: names of services, and settings.
type ReloadResult struct {
	Added   []string `json:"added,omitempty"`   // declared now
	Removed []string `json:"removed,omitempty"` // no longer declared: stopped
	Changed []string `json:"changed,omitempty"` // their process would look different: restarted
	Updated []string `json:"updated,omitempty"` // only rules about them changed: not touched
	Kept    []string `json:"kept,omitempty"`    // as before
	Later   []string `json:"later,omitempty"`   // settings that are others now and hold from p2pnode's next start
}

// sameSpec compares by what is declared.
func sameSpec(a, b p2pnode.ServiceSpec) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && bytes.Equal(x, y)
}

// sameProcess reports whether a running process of a would do for b.
func sameProcess(a, b p2pnode.ServiceSpec) bool {
	visible := func(s p2pnode.ServiceSpec) p2pnode.ServiceSpec {
		if s.Ready != p2pnode.ReadyNotify {
			s.Ready = "" // a process is not told of its checks
		}
		return p2pnode.ServiceSpec{
			Command: s.Command, Cwd: s.Cwd, Env: s.Env, EnvFile: s.EnvFile, User: s.User, Group: s.Group, Log: s.Log, LogFile: s.LogFile,
			Limits: s.Limits, Umask: s.Umask, Nice: s.Nice, OOM: s.OOM, Gain: s.Gain,
			Watchdog: s.Watchdog, Ready: s.Ready,
		}
	}
	return sameSpec(visible(a), visible(b))
}
