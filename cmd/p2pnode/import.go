package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"p2pnode"
)

// importCommand carries what other supervisors run over into our file. What has no
// counterpart is said, line by line, and never guessed.
func (a *app) importCommand() *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Write p2pnode.yaml (to stdout) from a Procfile, a supervisord INI or a systemd unit", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			got, err := importFile(args[0], from)
			if err != nil {
				return err
			}
			for _, n := range got.notes {
				if n.line > 0 {
					fmt.Fprintf(a.stderr, "%s:%d: %s\n", args[0], n.line, n.text)
				} else {
					fmt.Fprintf(a.stderr, "%s: %s\n", args[0], n.text)
				}
			}
			text := got.yaml(filepath.Base(args[0]))
			if a.json() {
				var notes []importNote
				for _, n := range got.notes {
					notes = append(notes, importNote{n.line, n.text})
				}
				return writeJSON(a.stdout, importDoc{p2pnode.Schema("import"), got.kind, text, notes}, "")
			}
			_, err = io.WriteString(a.stdout, text)
			return err
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "what FILE is: `procfile|supervisord|systemd` (default: by its name)")
	return cmd
}

// importDoc is `import -o json`.
type importDoc struct {
	Schema string       `json:"schema"`
	From   string       `json:"from"`
	YAML   string       `json:"yaml"`
	Notes  []importNote `json:"notes"`
}

type importNote struct {
	Line int    `json:"line,omitempty"`
	Text string `json:"text"`
}

// imported is what was understood of a file of another supervisor.
type imported struct {
	kind     string
	path     string // as the person wrote it
	dir      string // of the file, absolute
	services []*importedService
	top      []entry // keys of the file itself
	notes    []problem
}

// importedService is one service to be; its keys are in the order of writing.
type importedService struct {
	name string
	line int
	keys []entry
}

// entry is a key and its value, as YAML.
type entry struct{ key, value string }

func (s *importedService) set(key, value string) {
	for i := range s.keys {
		if s.keys[i].key == key {
			s.keys[i].value = value
			return
		}
	}
	s.keys = append(s.keys, entry{key, value})
}

func (m *imported) note(line int, format string, args ...any) {
	m.notes = append(m.notes, problem{line, fmt.Sprintf(format, args...)})
}

// importFile reads a file of another supervisor. The errors are a person's to mend.
func importFile(path, from string) (*imported, error) {
	raw, err := readConfigFile(path)
	if err != nil {
		return nil, &p2pnode.Error{Code: "import-unreadable", Exit: p2pnode.ExitUsage, Text: fmt.Sprintf("cannot read %s: %v", path, bare(err)), Fix: "name a Procfile, a supervisord INI or a systemd unit"}
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if from == "" {
		from = kindOf(path, string(raw))
	}
	m := &imported{kind: from, path: path, dir: filepath.Dir(abs)}
	switch from {
	case "procfile":
		err = m.procfile(string(raw))
	case "supervisord":
		err = m.supervisord(string(raw))
	case "systemd":
		err = m.systemd(string(raw), filepath.Base(path))
	default:
		return nil, usage("--from is %q, should be procfile, supervisord or systemd", from)
	}
	if err == nil && len(m.services) == 0 {
		err = m.wrong(1, "no service is in it, read as "+from)
	}
	return m, err
}

// wrong is an error in a line of the file.
func (m *imported) wrong(line int, text string) error {
	return &p2pnode.Error{Code: "import-invalid", Exit: p2pnode.ExitUsage, Text: fmt.Sprintf("%s:%d: %s", m.path, line, text), Fix: "correct it, or say what it is with --from procfile|supervisord|systemd"}
}

// kindOf knows a file by its name, else by what is in it.
func kindOf(path, text string) string {
	switch name := strings.ToLower(filepath.Base(path)); {
	case strings.HasSuffix(name, ".service"):
		return "systemd"
	case strings.HasPrefix(name, "procfile"):
		return "procfile"
	}
	switch {
	case regexp.MustCompile(`(?m)^\[(Service|Unit|Install)\]`).MatchString(text):
		return "systemd"
	case regexp.MustCompile(`(?m)^\[[a-z]+(:[^\]]+)?\]`).MatchString(text):
		return "supervisord"
	}
	return "procfile"
}

var notInName = regexp.MustCompile(`[^A-Za-z0-9_-]+`)

// add begins a service under a name that we allow and nobody else has.
func (m *imported) add(line int, name string) *importedService {
	allowed := strings.Trim(notInName.ReplaceAllString(name, "-"), "-")
	if len(allowed) > 48 {
		allowed = allowed[:48]
	}
	if allowed == "" {
		allowed = "service"
	}
	unique := allowed
	for i := 2; m.has(unique); i++ {
		unique = fmt.Sprintf("%s-%d", allowed, i)
	}
	if unique != name {
		m.note(line, "%q is called %s", name, unique)
	}
	s := &importedService{name: unique, line: line}
	m.services = append(m.services, s)
	return s
}

func (m *imported) has(name string) bool {
	for _, s := range m.services {
		if s.name == name {
			return true
		}
	}
	return false
}

// yaml is the file that `config check` passes.
func (m *imported) yaml(from string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# From %s (%s). Check it with: p2pnode config check\n", strings.Map(printable, from), m.kind)
	for _, e := range m.top {
		fmt.Fprintf(&b, "%s: %s\n", e.key, e.value)
	}
	b.WriteString("services:\n")
	for _, s := range m.services {
		fmt.Fprintf(&b, "  %s:\n", yamlText(s.name))
		for _, e := range s.keys {
			fmt.Fprintf(&b, "    %s: %s\n", e.key, e.value)
		}
	}
	return b.String()
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f || r == 0x85 || r == 0x2028 || r == 0x2029 || r == 0xfeff {
		return '?'
	}
	return r
}

var plainText = regexp.MustCompile(`^[A-Za-z_./-][A-Za-z0-9_./+-]*$`)

// yamlWords would be read as something else than a text.
var yamlWords = regexp.MustCompile(`^(?i:true|false|yes|no|on|off|null|y|n|-+|\.(nan|inf)|-\.inf)$`)

// yamlText is s as a YAML scalar: bare where that is safe, else in double quotes,
// in which YAML reads what JSON writes.
func yamlText(s string) string {
	if plainText.MatchString(s) && !yamlWords.MatchString(s) {
		return s
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.Encode(s) // a string cannot fail
	return strings.TrimSuffix(b.String(), "\n")
}

func yamlList(list []string) string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = yamlText(s)
	}
	return "[" + strings.Join(out, ", ") + "]"
}

func yamlMap(pairs []entry) string {
	out := make([]string, len(pairs))
	for i, p := range pairs {
		out[i] = yamlText(p.key) + ": " + yamlText(p.value)
	}
	return "{" + strings.Join(out, ", ") + "}"
}

// procfile reads `name: command` lines, as foreman, overmind and Heroku do.
func (m *imported) procfile(text string) error {
	line := regexp.MustCompile(`^([A-Za-z0-9_.-]+):\s*(.*)$`)
	env := filepath.Join(m.dir, ".env")
	info, err := os.Stat(env)
	hasEnv := err == nil && info.Mode().IsRegular()
	if hasEnv {
		if raw, err := os.ReadFile(env); err == nil && strings.Contains(string(raw), "$") {
			m.note(0, ".env is read as it stands: what begins with $ in it is not filled in")
		}
	}
	n := 0
	for raw := range strings.Lines(text) {
		n++
		raw = strings.TrimSpace(raw)
		if raw == "" || raw[0] == '#' {
			continue
		}
		f := line.FindStringSubmatch(raw)
		if f == nil || f[2] == "" {
			return m.wrong(n, fmt.Sprintf("%.40q is not name: command", raw))
		}
		s := m.add(n, f[1])
		s.set("shell", yamlText(f[2]))
		s.set("cwd", yamlText(m.dir))
		if hasEnv {
			s.set("env_file", yamlText(env))
		}
		if strings.Contains(f[2], "$PORT") || strings.Contains(f[2], "${PORT") {
			m.note(n, "%s wants $PORT, which p2pnode does not give out: say env: {PORT: ...}", s.name)
		}
		if s.name == "release" {
			m.note(n, "release runs once before the others at Heroku: here it is a service; make it before: of those that need it")
			s.set("restart", "on-failure")
		}
	}
	return nil
}
