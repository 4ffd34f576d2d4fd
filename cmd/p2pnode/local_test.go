package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"p2pnode"
)

// What ps says of a service in its last column.
func TestPSNotes(t *testing.T) {
	in := func(d time.Duration) time.Time { return time.Now().Add(d) }
	checked := func(which, text string) *p2pnode.CheckStatus {
		return &p2pnode.CheckStatus{Which: which, State: "failing", LastError: text}
	}
	const loops = "ended by SIGKILL; it keeps failing: one start a minute"
	for want, s := range map[string]p2pnode.ServiceStatus{
		"":        {State: p2pnode.StateUp},
		"adopted": {State: p2pnode.StateUp, Adopted: true},
		"maintenance for 59m; observe only; adopted": {MaintenanceUntil: in(time.Hour), Observe: true, Adopted: true},
		"maintenance for 0ms":                        {MaintenanceUntil: in(-time.Minute)},
		loops + "; next try in 41s":                  {State: p2pnode.StateCrashLooping, Why: loops, NextTry: in(41500 * time.Millisecond)},
		loops + "; next try is due":                  {State: p2pnode.StateCrashLooping, Why: loops, NextTry: in(-5 * time.Second)},
		"the program is new":                         {State: p2pnode.StateUp, Why: "the program is new", NextTry: in(time.Minute)},
		"check: 503":                                 {State: p2pnode.StateUp, Check: checked("", "503")},
		"ready check: 503":                           {State: p2pnode.StateUp, Check: checked("ready", "503")},
		"hung: live check: 503":                      {State: p2pnode.StateUp, Why: "hung: live check: 503", Check: checked("live", "503")},
		"0.1 MB of its output are not in its log":    {State: p2pnode.StateUp, LogDropped: 1},
		"3.5 MB of its output are not in its log":    {State: p2pnode.StateUp, LogDropped: 1e6, LogLeftOut: 25e5},
	} {
		if got := psNote(s); got != want {
			t.Errorf("%+v\nis %q\nwant %q", s, got, want)
		}
	}
}

// The table: what is not known is left empty, and what ended a life is told.
func TestPSTable(t *testing.T) {
	services := []p2pnode.ServiceStatus{
		{Name: "@exec", State: p2pnode.StateUp, PID: 7},
		{Name: "big", State: p2pnode.StateUp, PID: 8, Restarts: 2, Since: time.Now().Add(-90 * time.Second), Usage: &p2pnode.Usage{CPUPercent: 99.96, Memory: 25 << 29}, LastExit: &p2pnode.Exit{Signal: "SIGKILL", OOM: true}},
		{Name: "small", State: p2pnode.StateUp, PID: 9, Usage: &p2pnode.Usage{CPUPercent: 0.04, Memory: 3 << 20}, LastExit: &p2pnode.Exit{Signal: "SIGSEGV"}, Labels: map[string]string{"tier": "web"}},
		{Name: "code", State: p2pnode.StateExited, LastExit: &p2pnode.Exit{Code: 3}},
		{Name: "lost", State: p2pnode.StateBackoff, LastExit: &p2pnode.Exit{Unknown: true}},
	}
	var b bytes.Buffer
	printPS(&printer{w: &b, wide: true}, services)
	said := strings.Fields(b.String())
	want := "SERVICE STATE PID RESTARTS SINCE CPU MEMORY NOTE INCARNATION RECOVER LABELS LAST EXIT " +
		"@exec up 7 - - - - - - - - - big up 8 2 90s 100.0% 12.5G - - - - killed: out of memory small up 9 0 - 0.0% 3M - - - tier=web SIGSEGV " +
		"code exited - 0 - - - - - - - exit 3 lost backoff - 0 - - - - - - - unknown"
	if got := strings.Join(said, " "); got != want {
		t.Errorf("table\n%s\nis\n%s\nwant\n%s", b.String(), got, want)
	}
}
