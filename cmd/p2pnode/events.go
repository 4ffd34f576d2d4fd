package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"p2pnode"
	"p2pnode/manage"
)

func (a *app) eventsCommand() *cobra.Command {
	var follow bool
	var since uint64
	cmd := &cobra.Command{
		Use: "events", Short: "What happens, one line each", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withNode(cmd, func(ctx context.Context, c *manage.Client) error { return a.events(ctx, c, since, follow) })
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as things happen")
	cmd.Flags().Uint64Var(&since, "since", 0, "begin after this `SEQ`")
	return cmd
}

// events prints each event as it comes; only -o json without -f waits for the last
// one and prints one document.
func (a *app) events(ctx context.Context, c *manage.Client, since uint64, follow bool) error {
	p := a.printer()
	whole := a.format == formatJSON && !follow
	doc := struct {
		Schema string            `json:"schema"`
		Events []json.RawMessage `json:"events"`
	}{p2pnode.Schema("events"), []json.RawMessage{}}
	err := c.Events(ctx, since, follow, func(e p2pnode.EventDoc) error {
		switch {
		case whole:
			doc.Events = append(doc.Events, flat(e))
		case a.json():
			return writeJSON(a.stdout, flat(e), "")
		case a.format == formatName:
			p.line("%d", e.Seq)
		default:
			p.line("%s  %-9s %-10s %s", e.At.Local().Format("15:04:05.000"), e.Event, e.Node, eventText(e))
		}
		return nil
	})
	if err == nil && whole {
		return writeJSON(a.stdout, doc, "  ")
	}
	return err
}

// flat is an event as programs read it: seq, at, node and event, then its own
// fields beside them. One that would hide one of the four carries the event's name
// before its own.
func flat(e p2pnode.EventDoc) json.RawMessage {
	fields := e.Fields
	e.Fields = nil
	head, err := json.Marshal(e)
	var taken, more map[string]json.RawMessage
	if err != nil || json.Unmarshal(head, &taken) != nil || json.Unmarshal(fields, &more) != nil {
		return head
	}
	out := bytes.NewBuffer(bytes.TrimSuffix(head, []byte("}")))
	for _, key := range sortedKeys(more) {
		name := key
		if same, clash := taken[key]; clash {
			if bytes.Equal(same, more[key]) {
				continue
			}
			name = e.Event + "_" + key
		}
		out.WriteString("," + strconv.Quote(name) + ":")
		out.Write(more[key])
	}
	out.WriteString("}")
	return out.Bytes()
}

// eventText is an event's fields in one line for people; a kind that is not known
// here is shown as it came.
func eventText(e p2pnode.EventDoc) string {
	var f struct {
		Target, Verdict, Was         string
		Agent, Kind                  string
		Service, Fact, State, Detail string
		Phase, Observed, Action      string
		Incident, ID, Class, Node    string
		On, Ended                    bool
		Unreachable, Of, Hops, PID   int
		Lost                         uint64
		By                           p2pnode.By
	}
	if json.Unmarshal(e.Fields, &f) != nil {
		return string(e.Fields)
	}
	switch e.Event {
	case "verdict":
		return words(f.Target, "is", f.Verdict, prefixed("was ", f.Was))
	case "agent":
		if f.Ended {
			return words(f.Agent, "ended on", e.Node)
		}
		return words(f.Agent, prefixed("from ", f.Was), "is on "+e.Node, prefixed("for ", f.Incident))
	case "service":
		if f.Fact == string(p2pnode.FactState) || f.Fact == f.State {
			f.Fact = "" // its state says it all
		}
		return words(f.Service, f.Fact, f.State, f.Class, f.Detail)
	case "report":
		return words(f.Incident, f.Service, f.Phase, f.Observed, f.Action)
	case "incident":
		return words(f.ID, thing(f.Node, f.Service), f.Class, f.State, prefixed("by ", byText(f.By)))
	case "brake":
		return fmt.Sprintf("%s, %d of %d unreachable", map[bool]string{true: "on", false: "off"}[f.On], f.Unreachable, f.Of)
	case "gap":
		return fmt.Sprintf("%d events are no longer remembered", f.Lost)
	}
	return string(e.Fields)
}

// words joins what is not empty.
func words(parts ...string) string {
	var out []string
	for _, p := range parts {
		if p != "" {
			out = append(out, p)
		}
	}
	return strings.Join(out, " ")
}

func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}
