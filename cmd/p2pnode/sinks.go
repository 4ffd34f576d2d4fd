package main

import (
	"net/url"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"p2pnode/manage/notify"
)

// sinks reads `notify:`, a list of those who are told.
func (r *reader) sinks(n *yaml.Node) (out []notify.Sink) {
	n = target(n)
	if n.Kind != yaml.SequenceNode {
		r.bad(n, "notify should be a list, with - before each entry")
		return nil
	}
	for _, entry := range n.Content {
		out = append(out, r.sink(target(entry)))
	}
	return out
}

func (r *reader) sink(n *yaml.Node) (s notify.Sink) {
	var on []string
	r.fields(n, "notify", map[string]func(*yaml.Node){
		"run":     r.argv("notify: run", &s.Run),
		"webhook": r.text("notify: webhook", &s.Webhook),
		"on":      r.texts("notify: on", &on),
	})
	switch u, err := url.Parse(s.Webhook); {
	case (len(s.Run) == 0) == (s.Webhook == ""):
		r.bad(n, "notify: an entry should have run or webhook, one of them")
	case s.Webhook != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https"):
		r.bad(n, "notify: webhook should be a URL like https://host/path")
	}
	for _, word := range on {
		if !slices.Contains(notify.Events(), notify.Event(word)) {
			r.bad(n, "notify: on is %q, should be one of %s", word, strings.Join(eventNames(), ", "))
		}
		s.On = append(s.On, notify.Event(word))
	}
	return s
}

func eventNames() (out []string) {
	for _, e := range notify.Events() {
		out = append(out, string(e))
	}
	return out
}
