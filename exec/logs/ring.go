package logs

import (
	"bytes"
	"strings"
	"time"
	"unicode/utf8"
)

// line is one line as it is kept: cut, valid UTF-8, without its newline.
type line struct {
	seq  uint64 // of the line, from 1
	at   time.Time
	text string
}

// ring holds the newest lines and the first ones of the run that goes on.
type ring struct {
	lines   []line
	bytes   int
	seq     uint64
	runFrom uint64 // seq of the run's first line
	first   []string
	partial []byte // a line that has no end yet, cut to maxLine
	cut     bool   // partial lost bytes
}

// run starts a new run; an unfinished line of the old one is ended, and said so.
func (r *ring) run(now time.Time) (ended bool) {
	ended = len(r.partial) > 0
	if ended {
		r.newline(now)
	}
	r.first = nil
	r.runFrom = r.seq + 1
	return ended
}

// add takes what was read; emit is told each complete line.
func (r *ring) add(now time.Time, data []byte, emit func(line)) {
	for len(data) > 0 {
		head, rest, complete := bytes.Cut(data, []byte{'\n'})
		room := maxLine - len(r.partial)
		if len(head) > room {
			head, r.cut = head[:max(room, 0)], true
		}
		r.partial = append(r.partial, head...)
		if !complete {
			return
		}
		emit(r.newline(now))
		data = rest
	}
}

func (r *ring) newline(now time.Time) line {
	r.seq++
	l := line{seq: r.seq, at: now, text: clean(r.partial)}
	if r.cut {
		l.text += " [line cut]"
	}
	r.partial, r.cut = r.partial[:0], false
	if len(r.first) < excerptFirst {
		r.first = append(r.first, l.text)
	}
	r.lines = append(r.lines, l)
	r.bytes += len(l.text)
	for r.bytes > maxRingBytes || len(r.lines) > maxRingLines {
		// Resliced: append moves what is left to a new array now and then. Copying it
		// down here would move 2000 lines for each line of a flood.
		r.bytes -= len(r.lines[0].text)
		r.lines[0] = line{}
		r.lines = r.lines[1:]
	}
	return l
}

// ofRun are the lines of the run that goes on, with its unfinished last one.
func (r *ring) ofRun() []string {
	var out []string
	for _, l := range r.lines {
		if l.seq >= r.runFrom {
			out = append(out, l.text)
		}
	}
	if len(r.partial) > 0 {
		out = append(out, clean(r.partial))
	}
	return out
}

// clean makes text that a terminal and JSON can show: valid UTF-8, no control
// characters but tabs.
func clean(b []byte) string {
	b = bytes.TrimSuffix(b, []byte{'\r'})
	if plain(b) {
		return string(b)
	}
	return strings.Map(func(r rune) rune {
		if r == utf8.RuneError || (r < 0x20 && r != '\t') || r == 0x7f {
			return utf8.RuneError
		}
		return r
	}, string(b))
}

// plain reports whether b is printable ASCII, as most lines are.
func plain(b []byte) bool {
	for _, c := range b {
		if (c < 0x20 && c != '\t') || c >= 0x7f {
			return false
		}
	}
	return true
}
