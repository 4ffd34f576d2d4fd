package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/manage"
)

func (a *app) logsCommand() *cobra.Command {
	var q exec.LogQuery
	var since, grep string
	var stamps bool
	cmd := &cobra.Command{
		Use: "logs [[NODE/]SVC...]", Short: "What services wrote (no name: all)",
		Long: "What services wrote: of this host, or of another one on a manager of its cluster. From another host come at most 10000 lines of each service and, without -f, 1 MiB in all; secrets are masked there, and --grep looks at what is masked.",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			now := time.Now()
			if q.Since, err = parseSince(since, now); err != nil {
				return err
			}
			show := shownLog{stamps: stamps, follow: q.Follow}
			if show.grep, err = regexp.Compile(grep); err != nil {
				return usage("--grep is %q: %v", grep, err)
			}
			q.Grep = grep
			afar := exec.LogRead{Lines: q.Lines, Grep: grep, Follow: q.Follow}
			if !q.Since.IsZero() {
				afar.Within = max(now.Sub(q.Since), 1)
			}
			return a.withExec(cmd, func(ctx context.Context, client *exec.Client) error {
				var from []logSource
				for _, arg := range args {
					name, err := a.localTarget(ctx, client, arg)
					if e, ok := errors.AsType[*p2pnode.Error](err); ok && e.Code == otherHost {
						from = append(from, a.remoteLog(arg, afar))
						continue
					}
					if err != nil {
						return err
					}
					if name == p2pnode.SelfExec {
						return &p2pnode.Error{Code: "no-log", Text: "exec keeps no log of its own: it writes to the stderr that it was started with", Fix: "look at that terminal, at journalctl or at the container's log; events: p2pnode events"}
					}
					q.Services = append(q.Services, name)
				}
				switch {
				case q.Lines == 0: // nothing of the past
					q.Since = time.Now()
				case grep != "" && !q.Follow: // all that exec has, and of what matches the newest
					show.newest, q.Lines = q.Lines, math.MaxInt32
				}
				if len(q.Services) > 0 || len(args) == 0 {
					from = append(from, localLog(client, q))
				}
				show.alone = len(args) == 1 && !strings.HasSuffix(args[0], "/") && !strings.Contains(args[0], "=")
				return a.logs(ctx, from, show)
			})
		},
	}
	cmd.Flags().BoolVarP(&q.Follow, "follow", "f", false, "go on as lines are written")
	cmd.Flags().IntVarP(&q.Lines, "lines", "n", 100, "at most so many lines from the past, per service")
	cmd.Flags().StringVar(&grep, "grep", "", "only lines that match the regular expression `RE`, (?i)re without regard to case")
	cmd.Flags().BoolVarP(&stamps, "timestamps", "t", false, "say when each line was written")
	cmd.Flags().StringVar(&since, "since", "", "only what is younger than this, `10m`, or was written after it, 2026-11-26T12:00:00Z")
	return cmd
}

// logSource calls f with line after line; where they are followed until ctx ends, f
// fails or nothing more can come.
type logSource func(ctx context.Context, f func(logLine) error) error

// localLog are the logs that this host's exec has.
func localLog(client *exec.Client, q exec.LogQuery) logSource {
	return func(ctx context.Context, f func(logLine) error) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		lines, err := client.Logs(ctx, q)
		if err != nil {
			return err
		}
		for l := range lines {
			if err := f(logLine{Service: l.Service, At: l.At, Text: l.Text, Note: l.Note}); err != nil {
				return err
			}
		}
		if q.Follow && ctx.Err() == nil { // exec has ended, or what was followed is no longer declared
			_, err = client.Status(ctx)
			return err
		}
		return ctx.Err()
	}
}

// remoteLog are the logs of NODE/SVC, as this host's node process gets them.
func (a *app) remoteLog(target string, read exec.LogRead) logSource {
	node, service, _ := strings.Cut(target, "/")
	return func(ctx context.Context, f func(logLine) error) error {
		dir, err := clientDir(a.data)
		if err != nil {
			return err
		}
		c, err := manage.Dial(ctx, dir)
		if err != nil {
			return err
		}
		defer c.Close()
		return c.Logs(ctx, node, service, read, func(l exec.LogLine) error {
			return f(logLine{Node: node, Service: l.Service, At: l.At, Text: l.Text, Note: l.Note})
		})
	}
}

// parseSince reads how long ago, or when; "" is the zero time.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	return time.Time{}, usage("--since is %q, should be a duration like 10m or a time like %s", text, now.UTC().Truncate(time.Second).Format(time.RFC3339))
}

// logLine is one line of `logs -o jsonl`.
type logLine struct {
	Node    string    `json:"node,omitempty"` // as it was asked for; "": this host
	Service string    `json:"service"`
	At      time.Time `json:"at,omitzero"`
	Text    string    `json:"text"`
	Note    bool      `json:"note,omitempty"` // about what is not shown: no line of the log
}

// of is whose line it is: SVC here, NODE/SVC elsewhere.
func (l logLine) of() string {
	if l.Node == "" {
		return l.Service
	}
	return l.Node + "/" + l.Service
}

// shownLog is what is shown of the lines that exec has, and how.
type shownLog struct {
	grep   *regexp.Regexp
	newest int // at most so many of each service; 0: all that come
	stamps bool
	follow bool
	alone  bool // one service was asked for, by its name
}

func (a *app) logs(ctx context.Context, from []logSource, show shownLog) error {
	if show.follow {
		return a.followLogs(ctx, from, show)
	}
	// The past is shown in the order in which it was written, whoever wrote it.
	past, notes := []logLine{}, []logLine{}
	room := 0 // how many lines there may be until those are dropped that are not shown
	for _, source := range from {
		err := source(ctx, func(l logLine) error {
			switch {
			case l.Note:
				notes = append(notes, l)
			case l.Node != "" || show.grep.MatchString(l.Text): // there it was looked for already
				if past = append(past, l); show.newest > 0 && len(past) > room {
					past = newestOf(past, show.newest)
					room = 2*len(past) + 1000
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	past = newestOf(past, show.newest)
	slices.SortStableFunc(past, func(a, b logLine) int { return a.At.Compare(b.At) })
	if a.json() {
		past, notes = slices.Insert(past, 0, notes...), nil
	}
	a.logNotes(notes)
	if a.format == formatJSON && ctx.Err() == nil {
		return writeJSON(a.stdout, struct {
			Schema string    `json:"schema"`
			Lines  []logLine `json:"lines"`
		}{p2pnode.Schema("logs"), past}, "  ")
	}
	for _, l := range past {
		if err := a.logLine(l, show); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// followLogs prints lines of all sources as they come; the first failure ends it.
func (a *app) followLogs(ctx context.Context, from []logSource, show shownLog) error {
	lines, ends := make(chan logLine), make(chan error, len(from))
	ctx, cancel := context.WithCancel(ctx)
	var readers sync.WaitGroup
	defer readers.Wait()
	defer cancel()
	for _, source := range from {
		readers.Go(func() {
			ends <- source(ctx, func(l logLine) error {
				select {
				case lines <- l:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		})
	}
	for open := len(from); open > 0; {
		select {
		case l := <-lines:
			if l.Note && !a.json() {
				a.logNotes([]logLine{l})
				continue
			}
			if l.Node == "" && !l.Note && !show.grep.MatchString(l.Text) {
				continue
			}
			if err := a.logLine(l, show); err != nil {
				return err
			}
		case err := <-ends:
			if open--; err != nil {
				return err
			}
		}
	}
	return nil
}

// logNotes says what is not shown, once for all services of which it is said.
func (a *app) logNotes(notes []logLine) {
	of := map[string][]string{}
	for _, l := range notes {
		of[l.Text] = append(of[l.Text], l.of())
	}
	for _, text := range slices.Sorted(maps.Keys(of)) {
		slices.Sort(of[text])
		fmt.Fprintf(a.stderr, "%s: %s\n", strings.Join(of[text], ", "), strings.Trim(text, "[]"))
	}
}

// newestOf keeps the newest n lines of each service; n <= 0: all.
func newestOf(lines []logLine, n int) []logLine {
	if n <= 0 {
		return lines
	}
	drop := map[string]int{}
	for _, l := range lines {
		drop[l.of()]++
	}
	return slices.DeleteFunc(lines, func(l logLine) bool {
		drop[l.of()]--
		return drop[l.of()] >= n
	})
}

// logLine prints one line: its time where that is asked for, "-" where it is not
// known, and its service where there may be several.
func (a *app) logLine(l logLine, show shownLog) error {
	if a.json() {
		return writeJSON(a.stdout, l, "")
	}
	p := a.printer()
	head := ""
	if show.stamps || p.wide {
		at := "-"
		if !l.At.IsZero() {
			at = l.At.Local().Format("2006-01-02T15:04:05.000")
		}
		head = fmt.Sprintf("%-23s ", at)
	}
	if !show.alone || p.wide {
		head += fmt.Sprintf("%-12s ", l.of())
	}
	p.line("%s", p.paint(cell{head, faint})+l.Text)
	return nil
}
