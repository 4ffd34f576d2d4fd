package logs

import "strings"

// masked stands where a secret stood.
const masked = "[masked]"

// Masker masks lines that stand below each other, one at a time. The last line of a
// key's body is short and looks like any word: it is known by the lines before it.
// The zero value is ready.
type Masker struct{ inKey bool }

// Line is s without its secrets, and how many it had.
func (m *Masker) Line(s string) (string, int) {
	if m.inKey && bodyEnd.MatchString(s) {
		return masked, 1
	}
	out, n := Mask(s)
	l := glance{text: s}
	m.inKey = l.wide() && body.MatchString(s) || strings.Contains(s, "-----BEGIN ") && pemBegin.MatchString(s)
	return out, n
}

// maskLines masks all of lines.
func maskLines(lines []string) (out []string, n int) {
	out = make([]string, len(lines))
	var m Masker
	for i, s := range lines {
		var found int
		out[i], found = m.Line(s)
		n += found
	}
	return out, n
}

// Mask replaces what looks like a secret in one line and says how many it found.
// It errs on the side of masking: a log line is for reading, not for parsing. Most
// lines hold no text that any secret would: they cost a few microseconds.
func Mask(s string) (string, int) {
	n := 0
	l := newGlance(s)
	for i := range shapes {
		if !l.near(&shapes[i]) {
			continue
		}
		if masked, found := maskOne(l.text, &shapes[i]); found > 0 {
			n += found
			l = newGlance(masked)
		}
	}
	return l.text, n
}

// maskOne masks what looks like one shape.
func maskOne(s string, shape *shape) (string, int) {
	found := shape.re.FindAllStringSubmatchIndex(s, -1)
	if found == nil {
		return s, 0
	}
	n := 0
	out, from := make([]byte, 0, len(s)), 0
	for _, m := range found {
		start, end := -1, -1
		for g := 2; g < len(m) && start < 0; g += 2 {
			start, end = m[g], m[g+1]
		}
		if start < 0 || s[start:end] == masked {
			continue
		}
		out = append(out, s[from:start]...)
		out = append(out, masked...)
		from = end
		n++
	}
	return string(append(out, s[from:]...)), n
}

// glance is a log line with what is known of it at once.
type glance struct {
	text  string
	lower string
	run   int // the longest row of letters, digits, - and _
}

// folds are the letters outside of ASCII that a pattern without regard to case takes
// for one of ours: long s and the Kelvin sign.
var folds = strings.NewReplacer("\u017f", "s", "\u212a", "k")

func newGlance(s string) glance {
	l := glance{text: s}
	lower, run, ascii := make([]byte, len(s)), 0, true
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'A' && c <= 'Z':
			lower[i] = c + 'a' - 'A'
			run++
		case c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_':
			lower[i] = c
			run++
		default:
			lower[i] = c
			ascii = ascii && c < 0x80
			l.run = max(l.run, run)
			run = 0
		}
	}
	l.run, l.lower = max(l.run, run), string(lower)
	if !ascii {
		l.lower = folds.Replace(l.lower)
	}
	return l
}

// near reports whether the line may hold a secret of this shape.
func (l *glance) near(s *shape) bool {
	if s.may != nil && !s.may(l) {
		return false
	}
	for _, text := range s.near {
		if strings.Contains(l.lower, text) {
			return true
		}
	}
	return s.near == nil
}

// wide reports whether there may be 60 letters of base64 and nothing else.
func (l *glance) wide() bool {
	s := strings.TrimSpace(l.text)
	return len(s) >= 60 && len(s) <= 78 && !strings.Contains(s, " ")
}

// longRun reports whether there is a word as long as the keys that are handed out.
func (l *glance) longRun() bool { return l.run >= 16 }

// numbered reports whether eight digits stand before a colon.
func (l *glance) numbered() bool {
	digits := 0
	for i := range len(l.text) {
		switch c := l.text[i]; {
		case c >= '0' && c <= '9':
			digits++
		case c == ':' && digits >= 8:
			return true
		default:
			digits = 0
		}
	}
	return false
}

// MaskText masks a text of many lines.
func MaskText(text string) string {
	out, _ := maskLines(strings.Split(text, "\n"))
	return strings.Join(out, "\n")
}
