package store

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"p2pnode"
)

// What an own report is too large for is cut, so that no report is refused by the
// store that made it; what others send over the limits is refused.

// names are the fields that people read in tables and that are keys.
func names(r *p2pnode.Report) []*string {
	return []*string{
		(*string)(&r.Phase), &r.Agent, &r.Incident, (*string)(&r.Kind), &r.Node, &r.NodeName, &r.Service, (*string)(&r.Class),
		(*string)(&r.Held), (*string)(&r.By.Kind), &r.By.Agent, &r.By.Node, &r.Old, &r.New,
	}
}

func phrases(r *p2pnode.Report) []*string { return []*string{&r.Observed, &r.Action, &r.Result} }

// fit cuts r to the limits. Its excerpt loses lines from the front: the last words
// count most.
func fit(r p2pnode.Report) p2pnode.Report {
	for _, s := range names(&r) {
		*s = cut(*s, maxName)
	}
	for _, s := range phrases(&r) {
		*s = cut(*s, maxPhrase)
	}
	trail := make([]string, 0, len(r.Trail))
	for _, id := range r.Trail[:min(len(r.Trail), maxTrail)] {
		trail = append(trail, cut(id, maxName))
	}
	r.Trail = trail
	if len(trail) == 0 {
		r.Trail = nil
	}
	if r.Exit != nil {
		exit := *r.Exit
		exit.Signal = cut(exit.Signal, maxName)
		r.Exit = &exit
	}
	if r.Excerpt != nil {
		r.Excerpt = fitExcerpt(*r.Excerpt)
	}
	return r
}

func fitExcerpt(e p2pnode.Excerpt) *p2pnode.Excerpt {
	for {
		raw, err := json.Marshal(e)
		if err == nil && len(raw) <= maxExcerpt {
			return &e
		}
		e.Truncated = true
		if len(e.Lines) > 1 {
			e.Lines = e.Lines[1+len(e.Lines)/8:]
			continue
		}
		if len(e.Lines) == 1 && len(e.Lines[0]) > 0 {
			s := e.Lines[0]
			e.Lines = []string{strings.ToValidUTF8(s[1+len(s)/8:], "")}
			continue
		}
		return &p2pnode.Excerpt{Lines: []string{}, Truncated: true, Masked: e.Masked}
	}
}

// cut is at most n bytes of s, in whole runes and without control characters:
// others print it on a terminal.
func cut(s string, n int) string {
	if clean(s) && len(s) <= n {
		return s
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) <= n {
		return s
	}
	s = s[:n]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

func clean(s string) bool { return utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0 }

// check refuses what fit would not have left so.
func check(r p2pnode.Report) error {
	if r.Seq == 0 || r.Seq > maxSeq || r.Epoch == "" || len(r.Epoch) > maxEpoch || !clean(r.Epoch) || r.Incident == "" {
		return fmt.Errorf("%w: a report without identity", errWire)
	}
	if y := r.At.Year(); y < 1970 || y > 2200 {
		return fmt.Errorf("%w: a report of the year %d", errWire, y)
	}
	for _, s := range names(&r) {
		if len(*s) > maxName || !clean(*s) {
			return fmt.Errorf("%w: a name of %d bytes", errWire, len(*s))
		}
	}
	for _, s := range phrases(&r) {
		if len(*s) > maxPhrase || !clean(*s) {
			return fmt.Errorf("%w: a phrase of %d bytes", errWire, len(*s))
		}
	}
	if len(r.Trail) > maxTrail || r.Exit != nil && !clean(r.Exit.Signal) {
		return fmt.Errorf("%w: a trail of %d nodes", errWire, len(r.Trail))
	}
	for _, id := range r.Trail {
		if len(id) > maxName || !clean(id) {
			return fmt.Errorf("%w: a name of %d bytes in the trail", errWire, len(id))
		}
	}
	return nil
}
