package main

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"testing"
	"time"
)

// Of what matches the newest lines of each service are kept; times and services are
// said where they are asked for or not plain.
func TestLogsAreChosenAndShown(t *testing.T) {
	at := time.Date(2026, 11, 26, 12, 0, 0, 5e6, time.Local)
	lines := []logLine{{Service: "a", At: at, Text: "1"}, {Service: "b", At: at, Text: "2"}, {Service: "a", At: at, Text: "3"}, {Service: "a", Text: "4"}}
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
		if err := a.logLine(logLine{Service: "a", At: at, Text: "text"}, show); err != nil || out.String() != want {
			t.Errorf("%+v: %q, %v", show, out.String(), err)
		}
	}
}

// Lines of several sources come as they are written; a pattern is for those of this
// host only, and the first source that fails ends the rest.
func TestLogsOfSeveralHostsAreFollowed(t *testing.T) {
	var out bytes.Buffer
	a := &app{stdout: &out}
	said := make(chan struct{})
	from := []logSource{
		func(ctx context.Context, f func(logLine) error) error {
			err := errors.Join(f(logLine{Service: "web", Text: "no"}), f(logLine{Service: "web", Text: "match"}))
			close(said)
			<-ctx.Done()
			return errors.Join(err, ctx.Err())
		},
		func(_ context.Context, f func(logLine) error) error {
			<-said
			return errors.Join(f(logLine{Node: "b", Service: "db", Text: "[masked]"}), errors.New("refused"))
		},
	}
	err := a.logs(t.Context(), from, shownLog{follow: true, grep: regexp.MustCompile("match")})
	if err == nil || err.Error() != "refused" || out.String() != "web          match\nb/db         [masked]\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	past := func(node, text string, at int64) logSource {
		return func(_ context.Context, f func(logLine) error) error {
			return f(logLine{Node: node, Service: "web", At: time.Unix(at, 0), Text: text})
		}
	}
	out.Reset()
	if err := a.logs(t.Context(), []logSource{past("b", "second", 2), past("", "first", 1)}, shownLog{grep: regexp.MustCompile("")}); err != nil || out.String() != "web          first\nb/web        second\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}
