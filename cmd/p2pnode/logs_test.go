package main

import (
	"bytes"
	"regexp"
	"testing"
	"time"
)

// Of what matches the newest lines of each service are kept; times and services are
// said where they are asked for or not plain.
func TestLogsAreChosenAndShown(t *testing.T) {
	at := time.Date(2026, 11, 26, 12, 0, 0, 5e6, time.Local)
	lines := []logLine{{"a", at, "1"}, {"b", at, "2"}, {"a", at, "3"}, {"a", time.Time{}, "4"}}
	if got := newestOf(lines, 0); len(got) != 4 {
		t.Errorf("all: %v", got)
	}
	got := newestOf(append([]logLine(nil), lines...), 2)
	if len(got) != 3 || got[0].Text != "2" || got[1].Text != "3" || got[2].Text != "4" {
		t.Errorf("two of each: %v", got)
	}
	for want, show := range map[string]shownLog{
		"text\n":                         {alone: true},
		"a            text\n":            {},
		"2026-11-26T12:00:00.005 text\n": {alone: true, stamps: true},
		"2026-11-26T12:00:00.005 a            text\n": {stamps: true},
	} {
		var out bytes.Buffer
		a := &app{stdout: &out}
		show.grep = regexp.MustCompile("")
		if err := a.logLine(logLine{"a", at, "text"}, show); err != nil || out.String() != want {
			t.Errorf("%+v: %q, %v", show, out.String(), err)
		}
	}
}
