package main

import (
	"context"
	"fmt"
	"math"
	"regexp"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"p2pnode"
	"p2pnode/exec"
)

func (a *app) logsCommand() *cobra.Command {
	var q exec.LogQuery
	var since, grep string
	var stamps bool
	cmd := &cobra.Command{
		Use: "logs [[NODE/]SVC...]", Short: "What services wrote (no name: all)",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if q.Since, err = parseSince(since, time.Now()); err != nil {
				return err
			}
			show := shownLog{stamps: stamps}
			if show.grep, err = regexp.Compile(grep); err != nil {
				return usage("--grep is %q: %v", grep, err)
			}
			return a.withExec(cmd, func(ctx context.Context, client *exec.Client) error {
				for _, arg := range args {
					name, err := a.localTarget(ctx, client, arg)
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
				return a.logs(ctx, client, q, show)
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
	Service string    `json:"service"`
	At      time.Time `json:"at,omitzero"`
	Text    string    `json:"text"`
}

// shownLog is what is shown of the lines that exec has, and how.
type shownLog struct {
	grep   *regexp.Regexp
	newest int // at most so many of each service; 0: all that come
	stamps bool
	alone  bool // all lines are of one service
}

func (a *app) logs(ctx context.Context, client *exec.Client, q exec.LogQuery, show shownLog) error {
	show.alone = len(q.Services) == 1

	lines, err := client.Logs(ctx, q)
	if err != nil {
		return err
	}
	if q.Follow {
		for l := range lines {
			if !show.grep.MatchString(l.Text) {
				continue
			}
			if err := a.logLine(logLine(l), show); err != nil {
				return err
			}
		}
		if ctx.Err() == nil { // exec has ended, or what was followed is no longer declared
			_, err = client.Status(ctx)
			return err
		}
		return ctx.Err()
	}
	// The past is shown in the order in which it was written, whoever wrote it.
	past := []logLine{}
	for l := range lines {
		if show.grep.MatchString(l.Text) {
			past = append(past, logLine(l))
		}
	}
	past = newestOf(past, show.newest)
	slices.SortStableFunc(past, func(a, b logLine) int { return a.At.Compare(b.At) })
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

// newestOf keeps the newest n lines of each service; n <= 0: all.
func newestOf(lines []logLine, n int) []logLine {
	if n <= 0 {
		return lines
	}
	drop := map[string]int{}
	for _, l := range lines {
		drop[l.Service]++
	}
	return slices.DeleteFunc(lines, func(l logLine) bool {
		drop[l.Service]--
		return drop[l.Service] >= n
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
		head += fmt.Sprintf("%-12s ", l.Service)
	}
	p.line("%s", p.paint(cell{head, faint})+l.Text)
	return nil
}
