package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"p2pnode/exec/logs"
)

// setting is one KEY=VALUE of an INI file or a unit.
type setting struct {
	section, key, value string
	line                int
}

// parseINI reads sections of settings; a problem is told with its line. In
// supervisord's files a line that begins with a blank goes on with the value above
// it and " ;" begins a comment; in units a backslash at the end does the former.
func (m *imported) parseINI(text string, unit bool) ([]setting, error) {
	var out []setting
	section, open, n := "", false, 0
	for raw := range strings.Lines(text) {
		n++
		line := strings.TrimRight(raw, "\r\n")
		trimmed := strings.TrimSpace(line)
		if open {
			last := &out[len(out)-1]
			more, goes := strings.CutSuffix(trimmed, `\`)
			last.value = strings.TrimSpace(last.value + " " + strings.TrimSpace(more))
			open = goes
			continue
		}
		if trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';' {
			continue
		}
		if !unit && (line[0] == ' ' || line[0] == '\t') && len(out) > 0 && out[len(out)-1].section == section {
			out[len(out)-1].value += "\n" + cutComment(trimmed)
			continue
		}
		if trimmed[0] == '[' {
			name, _, ok := strings.Cut(trimmed[1:], "]")
			if !ok {
				return nil, m.wrong(n, fmt.Sprintf("%.40q is no [section]", trimmed))
			}
			section = name
			out = append(out, setting{section: section, line: n})
			continue
		}
		i := strings.IndexByte(trimmed, '=')
		if colon := strings.IndexByte(trimmed, ':'); !unit && colon >= 0 && (i < 0 || colon < i) {
			i = colon
		}
		if i < 1 || section == "" {
			return nil, m.wrong(n, fmt.Sprintf("%.40q is no key=value in a [section]", trimmed))
		}
		value := strings.TrimSpace(trimmed[i+1:])
		if unit {
			value, open = strings.CutSuffix(value, `\`)
			value = strings.TrimSpace(value)
		} else {
			value = cutComment(value)
		}
		out = append(out, setting{section, strings.TrimSpace(trimmed[:i]), value, n})
	}
	return out, nil
}

func cutComment(value string) string {
	if i := strings.Index(value, " ;"); i >= 0 {
		value = value[:i]
	}
	return strings.TrimSpace(value)
}

// splitWords cuts a command as shells and units do: blanks, quotes, backslashes.
func splitWords(line string) ([]string, error) {
	var out []string
	var word strings.Builder
	in, quote := false, byte(0)
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case c == '\\' && quote != '\'' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
			in = true
		case quote != 0:
			word.WriteByte(c)
		case c == '\'' || c == '"':
			quote, in = c, true
		case c == ' ' || c == '\t' || c == '\n':
			if in {
				out = append(out, word.String())
				word.Reset()
			}
			in = false
		default:
			word.WriteByte(c)
			in = true
		}
	}
	if quote != 0 {
		return nil, errors.New("a quote is not closed")
	}
	if in {
		out = append(out, word.String())
	}
	if len(out) == 0 || out[0] == "" {
		return nil, errors.New("it names no program")
	}
	return out, nil
}

// supervisord reads the programs of a supervisord.conf or of a file that one
// includes.
func (m *imported) supervisord(text string) error {
	all, err := m.parseINI(text, false)
	if err != nil {
		return err
	}
	ofAll := m.ofAll(all)
	for i := 0; i < len(all); {
		j := i + 1
		for j < len(all) && all[j].key != "" {
			j++
		}
		kind, name, _ := strings.Cut(all[i].section, ":")
		switch kind {
		case "program", "fcgi-program":
			if kind == "fcgi-program" {
				m.note(all[i].line, "the socket of %s is not made by p2pnode: let the program listen by itself", name)
			}
			if err := m.program(all[i].line, strings.TrimSpace(name), ofAll, all[i+1:j]); err != nil {
				return err
			}
		case "eventlistener":
			m.note(all[i].line, "eventlistener %s is left out: see notify: and p2pnode events", name)
		case "group":
			m.note(all[i].line, "group %s is left out: give its services labels: {group: %s}", name, name)
		case "include":
			m.note(all[i].line, "included files are not read: import each by itself")
		case "supervisord", "unix_http_server", "inet_http_server", "supervisorctl", "rpcinterface":
		default:
			m.note(all[i].line, "[%s] is left out", all[i].section)
		}
		i = j
	}
	return nil
}

// ofAll are the settings of supervisord itself that hold for all its programs.
func (m *imported) ofAll(all []setting) (out []setting) {
	for _, k := range all {
		if k.section != "supervisord" {
			continue
		}
		switch k.key {
		case "user", "umask", "environment", "minfds":
			out = append(out, k)
		case "directory":
			m.note(k.line, "directory of [supervisord] is left out: say cwd: for each service that wants it")
		case "minprocs":
			m.note(k.line, "minprocs is left out: say limits: {pids}")
		}
	}
	return out
}

// keptBySupervisor are keys whose work p2pnode does by itself, or that mean
// nothing here.
var keptBySupervisor = map[string]bool{
	"process_name": true, "stderr_logfile_maxbytes": true, "stderr_logfile_backups": true,
	"stopasgroup": true, "killasgroup": true, "stdout_capture_maxbytes": true, "stderr_capture_maxbytes": true,
}

func (m *imported) program(line int, name string, ofAll, own []setting) error {
	s := m.add(line, name)
	values := map[string]string{}
	for _, k := range own {
		values[k.key] = k.value
	}
	settings := slices.Concat(ofAll, own)
	many := values["numprocs"] != "" && values["numprocs"] != "1"
	out := values["stdout_logfile"]
	toFile := !strings.HasPrefix(out, "/dev/") && !strings.EqualFold(out, "NONE") // else what is said of it means nothing
	expand := func(k setting) string { return m.expand(k, name, many) }
	s.set("restart", "on-failure") // autorestart=unexpected is the default there
	var env []entry
	for _, k := range settings {
		value := expand(k)
		switch k.key {
		case "command":
			argv, err := splitWords(value)
			if err != nil {
				return m.wrong(k.line, "command: "+err.Error())
			}
			s.set("command", yamlList(argv))
		case "directory":
			s.set("cwd", yamlText(value))
		case "user":
			s.set("user", yamlText(value))
		case "umask":
			m.octal(s, k)
		case "environment":
			// What is said of all programs comes first: the program's own counts.
			if err := m.environment(s, &env, k.line, value); err != nil {
				return err
			}
		case "autostart":
			if isFalse(value) {
				s.set("start", "manual")
			}
		case "autorestart":
			switch {
			case isFalse(value):
				s.set("restart", `"no"`)
			case strings.EqualFold(value, "unexpected"):
			default:
				s.set("restart", "always")
			}
		case "exitcodes":
			if value != "0" {
				m.note(k.line, "exitcodes=%s: restart: on-failure counts 0 alone as good", value)
			}
		case "startsecs":
			m.note(k.line, "startsecs is left out: say check: so that p2pnode knows when %s is ready", s.name)
		case "stopsignal":
			m.stopSignal(s, k.line, value)
		case "stopwaitsecs":
			m.stopTimeout(s, k.line, value+"s")
		case "numprocs":
			if n, err := strconv.Atoi(value); err == nil && n >= 1 && n <= 256 {
				s.set("replicas", value)
			} else {
				m.note(k.line, "numprocs=%s is left out", value)
			}
		case "priority":
			m.note(k.line, "priority is left out: say after: [SERVICE] for what %s needs", s.name)
		case "stdout_logfile", "stderr_logfile":
			if value != "" && !strings.EqualFold(value, "AUTO") {
				m.note(k.line, "%s=%s is left out: p2pnode keeps the output, see p2pnode logs %s", k.key, value, s.name)
			}
		case "stdout_logfile_maxbytes":
			if toFile {
				m.logSize(s, k.line, value)
			}
		case "stdout_logfile_backups":
			if toFile {
				m.logKeep(s, k.line, value)
			}
		case "redirect_stderr":
			if isFalse(value) {
				m.note(k.line, "redirect_stderr=%s: both streams are in one log, in their order", value)
			}
		case "stdout_syslog", "stderr_syslog":
			if !isFalse(value) {
				m.note(k.line, "%s is left out: p2pnode sends nothing to syslog, see p2pnode logs %s", k.key, s.name)
			}
		case "startretries":
			m.note(k.line, "startretries is left out: p2pnode never gives a service up, what keeps failing is tried once a minute")
		case "numprocs_start":
			m.note(k.line, "numprocs_start is left out: numbers begin at 1")
		case "minfds":
			if n, err := strconv.ParseUint(value, 10, 31); err != nil || n == 0 {
				m.note(k.line, "minfds=%s is left out", value)
			} else {
				s.set("limits", "{nofile: "+strconv.FormatUint(n, 10)+"}")
			}
		default:
			if !keptBySupervisor[k.key] {
				m.note(k.line, "%s is left out", k.key)
			}
		}
	}
	if values["command"] == "" {
		return m.wrong(line, "program "+name+" has no command")
	}
	return nil
}

func isFalse(value string) bool {
	return value == "0" || strings.EqualFold(value, "false") || strings.EqualFold(value, "no") || strings.EqualFold(value, "off")
}

var expansion = regexp.MustCompile(`%\(([A-Za-z0-9_]+)\)[0-9]*[sd]`)

// expand resolves supervisord's %(name)s.
func (m *imported) expand(k setting, program string, many bool) string {
	out := expansion.ReplaceAllStringFunc(k.value, func(found string) string {
		switch name := expansion.FindStringSubmatch(found)[1]; {
		case name == "program_name" || name == "group_name":
			return program
		case name == "here":
			return m.dir
		case name == "process_num" && many:
			if !strings.HasSuffix(found, ")d") && !strings.HasSuffix(found, ")s") {
				m.note(k.line, "%s: numbers are 1, 2 ... and not padded", found)
			} else {
				m.note(k.line, "%s: numbers begin at 1, not at 0", found)
			}
			return "{i}"
		case name == "process_num":
			return "0"
		default:
			m.note(k.line, "%s is not known here and stays as it is", found)
			return found
		}
	})
	return strings.ReplaceAll(out, "%%", "%")
}

var envPair = regexp.MustCompile(`\s*([A-Za-z_][A-Za-z0-9_]*)\s*=\s*("(?:[^"\\]|\\.)*"|'[^']*'|[^,"'\s]*)\s*(?:,|$)`)

// environment reads KEY="value",KEY2=value2 into pairs; what they have already is
// replaced, and the first of two in value counts.
func (m *imported) environment(s *importedService, pairs *[]entry, line int, value string) error {
	seen := map[string]bool{}
	rest := strings.TrimSpace(strings.ReplaceAll(value, "\n", " "))
	for rest != "" {
		at := envPair.FindStringSubmatchIndex(rest)
		if at == nil || at[0] != 0 {
			return m.wrong(line, fmt.Sprintf("environment: %.40q is no KEY=\"value\"", rest))
		}
		key, v := rest[at[2]:at[3]], rest[at[4]:at[5]]
		if len(v) > 1 && (v[0] == '"' || v[0] == '\'') {
			v = strings.ReplaceAll(v[1:len(v)-1], `\"`, `"`)
		}
		if !seen[key] {
			*pairs = slices.DeleteFunc(*pairs, func(e entry) bool { return e.key == key })
			*pairs = append(*pairs, entry{key, v})
		}
		seen[key] = true
		rest = strings.TrimSpace(rest[at[1]:])
	}
	s.set("env", yamlMap(*pairs))
	return nil
}

func (m *imported) octal(s *importedService, k setting) {
	if v, err := strconv.ParseUint(k.value, 8, 16); err != nil || v > 0o777 {
		m.note(k.line, "%s=%s is left out: it is no octal number up to 777", k.key, k.value)
		return
	}
	s.set("umask", yamlText(k.value))
}

// stopSignal and stopTimeout fill in stop: {signal, timeout}.
func (m *imported) stopSignal(s *importedService, line int, value string) {
	name := strings.TrimPrefix(strings.ToUpper(value), "SIG")
	if !oneOf(name, stopSignals...) {
		m.note(line, "the stop signal %s is left out: p2pnode sends one of %s", value, strings.Join(stopSignals, ", "))
		return
	}
	s.setPart("stop", "signal: "+name)
}

func (m *imported) stopTimeout(s *importedService, line int, value string) {
	d, ok := unitSpan(value)
	if !ok || d == 0 { // 0 means for ever to systemd, and at once to us
		m.note(line, "the stop timeout %s is left out", value)
		return
	}
	s.setPart("stop", "timeout: "+d.String())
}

var byteSize = regexp.MustCompile(`^(?i)([0-9]+)(KB|MB|GB)?$`)

// logSize and logKeep fill in log: {size, keep}.
func (m *imported) logSize(s *importedService, line int, value string) {
	at := byteSize.FindStringSubmatch(value)
	if at == nil {
		m.note(line, "stdout_logfile_maxbytes=%s is left out", value)
		return
	}
	n, err := strconv.ParseUint(at[1], 10, 63)
	unit := strings.TrimSuffix(strings.ToUpper(at[2]), "B")
	bytes := float64(n) * sizes[unit]
	switch {
	case n == 0 || err != nil || bytes > logs.MaxSize: // 0 is no bound to supervisord
		m.note(line, "stdout_logfile_maxbytes=%s is left out: p2pnode bounds what it keeps, say log: {size, keep}", value)
	case bytes < logs.MinSize:
		m.note(line, "stdout_logfile_maxbytes=%s: the least is 1M", value)
		s.setPart("log", "size: 1M")
	default:
		s.setPart("log", "size: "+at[1]+unit)
	}
}

func (m *imported) logKeep(s *importedService, line int, value string) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		m.note(line, "stdout_logfile_backups=%s is left out", value)
		return
	}
	keep := min(max(n, logs.MinKeep), logs.MaxKeep)
	if keep != n {
		m.note(line, "stdout_logfile_backups=%s: p2pnode keeps from %d to %d", value, logs.MinKeep, logs.MaxKeep)
	}
	s.setPart("log", "keep: "+strconv.Itoa(keep))
}

// setPart adds to a mapping in braces, stop: {signal, timeout} for one.
func (s *importedService) setPart(key, part string) {
	for i := range s.keys {
		if s.keys[i].key == key {
			s.keys[i].value = strings.TrimSuffix(s.keys[i].value, "}") + ", " + part + "}"
			return
		}
	}
	s.set(key, "{"+part+"}")
}
