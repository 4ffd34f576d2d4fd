package main

import (
	"fmt"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// systemd reads a simple unit: one .service file, without its drop-ins.
func (m *imported) systemd(text, file string) error {
	all, err := m.parseINI(text, true)
	if err != nil {
		return err
	}
	name := strings.TrimSuffix(file, ".service")
	if at := strings.Index(name, "@"); at >= 0 {
		m.note(0, "%s is a template: %%i is not known here", file)
		name = name[:at]
	}
	line := 1
	for _, k := range all {
		if k.section == "Service" && k.key == "" {
			line = k.line
		}
	}
	u := unitReader{imported: m, s: m.add(line, name)}
	u.s.set("restart", `"no"`) // systemd's default
	for _, k := range all {
		if k.key == "" {
			if !oneOf(k.section, "Unit", "Service", "Install") {
				m.note(k.line, "[%s] is left out", k.section)
			}
			continue
		}
		k.value = strings.ReplaceAll(k.value, "%%", "%")
		if f := unitSpecifier.FindString(k.value); f != "" && k.section == "Service" {
			m.note(k.line, "%s in %s is not known here and stays as it is", f, k.key)
		}
		if err := u.take(k); err != nil {
			return err
		}
	}
	return u.finish(line)
}

var unitSpecifier = regexp.MustCompile(`%[A-Za-z]`)

// unitReader gathers what is said in several lines of a unit.
type unitReader struct {
	*imported
	s        *importedService
	commands []string // ExecStart as written, without prefixes
	lines    []int
	before   [][]string
	env      []entry
	envFiles []string
	oneshot  bool
	user     string

	outputFile string // that StandardOutput is carried over to, said in outputLine
	outputLine int
	errors     setting // the last StandardError
}

// unitTexts are settings that are our keys under another name.
var unitTexts = map[string]string{"User": "user", "Group": "group"}

// unitLimits are settings that are keys of limits:.
var unitLimits = map[string]string{"LimitNOFILE": "nofile", "LimitCORE": "core", "LimitDATA": "memory", "TasksMax": "pids", "CPUQuota": "cpu", "MemoryMax": "memory_total", "MemoryLimit": "memory_total"}

// silent are settings that say nothing which a p2pnode.yaml could say, or that
// p2pnode does by itself.
var silent = map[string]bool{
	"Description": true, "Documentation": true, "Alias": true, "DefaultDependencies": true,
	"SyslogIdentifier": true, "NotifyAccess": true, "Delegate": true, "Slice": true,
}

func (u *unitReader) take(k setting) error {
	if key := unitTexts[k.key]; key != "" && k.section == "Service" {
		if k.key == "User" {
			u.user = k.value
		}
		u.s.set(key, yamlText(k.value))
		return nil
	}
	if key := unitLimits[k.key]; key != "" {
		u.limit(k, key)
		return nil
	}
	switch k.key {
	case "ExecStart":
		return u.execStart(k)
	case "ExecStartPre":
		return u.execBefore(k)
	case "Type":
		u.kind(k)
	case "Environment":
		return u.environment(k)
	case "EnvironmentFile":
		u.environmentFile(k)
	case "WorkingDirectory":
		dir := strings.TrimPrefix(k.value, "-")
		if !filepath.IsAbs(dir) {
			u.note(k.line, "WorkingDirectory=%s is left out: say cwd:", k.value)
			return nil
		}
		u.s.set("cwd", yamlText(dir))
	case "Restart":
		u.restart(k)
	case "KillSignal":
		u.stopSignal(u.s, k.line, k.value)
	case "TimeoutStopSec":
		u.stopTimeout(u.s, k.line, k.value)
	case "TimeoutSec":
		u.stopTimeout(u.s, k.line, k.value)
		u.span(k, "start_within", 0)
	case "TimeoutStartSec":
		u.span(k, "start_within", 0)
	case "WatchdogSec":
		u.span(k, "watchdog", 10*time.Millisecond)
	case "UMask":
		u.octal(u.s, k)
	case "Nice":
		u.number(k, "nice", -20, 19)
	case "OOMScoreAdjust":
		u.number(k, "oom_score", -1000, 1000)
	case "KillMode":
		if k.value != "control-group" && k.value != "mixed" {
			u.note(k.line, "KillMode=%s: p2pnode always ends all of a service's processes", k.value)
		}
	case "NoNewPrivileges":
		u.note(k.line, "NoNewPrivileges: p2pnode forbids them to services with user: or group:, and to no others")
	case "After", "Requires", "BindsTo", "Wants", "Requisite", "PartOf":
		u.order(k)
	case "StandardOutput":
		u.output(k)
	case "StandardError":
		u.errors = k
	case "StartLimitIntervalSec", "StartLimitInterval", "StartLimitBurst":
		u.note(k.line, "%s is left out: p2pnode never gives a service up, what keeps failing is tried once a minute", k.key)
	case "SendSIGKILL":
		if isFalse(k.value) {
			u.note(k.line, "SendSIGKILL=%s: p2pnode kills what has not ended in its stop: {timeout}", k.value)
		}
	case "WantedBy", "RequiredBy":
		for by := range strings.FieldsSeq(k.value) {
			if !oneOf(by, "multi-user.target", "default.target", "graphical.target") {
				u.note(k.line, "%s=%s is left out: the service is started with p2pnode; what waits for it says so by after: or requires:", k.key, by)
			}
		}
	case "ExecReload":
		u.note(k.line, "ExecReload is left out: p2pnode reload reads p2pnode's own file; signal the program by hand")
	case "PIDFile":
		u.note(k.line, "PIDFile is left out: p2pnode watches the process that it starts; keep it in the foreground")
	case "RestartSec":
		u.note(k.line, "RestartSec is left out: a first restart is at once, then p2pnode waits longer each time")
	default:
		if !silent[k.key] {
			u.note(k.line, "%s is left out", k.key)
		}
	}
	return nil
}

// execStart takes the program off its prefixes, each of which is said.
func (u *unitReader) execStart(k setting) error {
	if k.value == "" {
		u.commands, u.lines = nil, nil // an empty one forgets those before it
		return nil
	}
	line := u.bareCommand(k)
	if _, err := splitWords(line); err != nil {
		return u.wrong(k.line, "ExecStart: "+err.Error())
	}
	u.commands, u.lines = append(u.commands, line), append(u.lines, k.line)
	return nil
}

func (u *unitReader) bareCommand(k setting) string {
	line := k.value
	for line != "" && strings.ContainsRune("-@:+!|", rune(line[0])) {
		u.note(k.line, "the prefix %c of %s is left out", line[0], k.key)
		line = strings.TrimSpace(line[1:])
	}
	return line
}

func (u *unitReader) execBefore(k setting) error {
	if k.value == "" {
		u.before = nil
		return nil
	}
	argv, err := u.argv(u.bareCommand(k))
	if err != nil {
		return u.wrong(k.line, "ExecStartPre: "+err.Error())
	}
	u.before = append(u.before, argv)
	return nil
}

// argv is a command of a unit; where systemd would fill in variables a shell does.
func (u *unitReader) argv(line string) ([]string, error) {
	argv, err := splitWords(line)
	if err == nil && strings.Contains(line, "$") {
		return []string{"/bin/sh", "-c", "exec " + line}, nil
	}
	return argv, err
}

func (u *unitReader) kind(k setting) {
	switch k.value {
	case "simple", "exec", "idle":
	case "notify", "notify-reload":
		u.s.set("ready", "notify")
	case "oneshot":
		u.oneshot = true
	case "forking":
		u.note(k.line, "Type=forking: p2pnode watches the process that it starts; give %s the option that keeps it in the foreground", u.s.name)
	default:
		u.note(k.line, "Type=%s is left out: say check: so that p2pnode knows when %s is ready", k.value, u.s.name)
	}
}

// output carries a file over that both streams go to.
func (u *unitReader) output(k setting) {
	how, path, _ := strings.Cut(k.value, ":")
	switch {
	case oneOf(how, "", "journal", "inherit", "syslog"):
	case oneOf(how, "file", "append", "truncate") && filepath.IsAbs(path) && !strings.ContainsAny(path, "%{"):
		u.s.set("log", "file")
		u.s.set("log_file", yamlText(path))
		u.outputFile, u.outputLine = path, k.line
		if how != "append" {
			u.note(k.line, "StandardOutput=%s: p2pnode appends to the file", k.value)
		}
	default:
		u.note(k.line, "StandardOutput=%s is left out: p2pnode keeps the output, see p2pnode logs %s", k.value, u.s.name)
	}
}

// outputs says what is only known when both streams and the user are.
func (u *unitReader) outputs() {
	how, path, _ := strings.Cut(u.errors.value, ":")
	switch {
	case oneOf(how, "", "inherit"):
	case oneOf(how, "journal", "syslog") && u.outputFile == "":
	case path != "" && path == u.outputFile:
	default:
		u.note(u.errors.line, "StandardError=%s is left out: both streams go the same way", u.errors.value)
	}
	if u.outputFile != "" && !oneOf(u.user, "", "root", "0") {
		u.note(u.outputLine, "%s is opened as %s here, not as root: it must be his to write", u.outputFile, u.user)
	}
}

func (u *unitReader) environment(k setting) error {
	if k.value == "" {
		u.env = nil
		return nil
	}
	words, err := splitWords(k.value)
	if err != nil {
		return u.wrong(k.line, "Environment: "+err.Error())
	}
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok || key == "" {
			return u.wrong(k.line, fmt.Sprintf("Environment: %.40q is no KEY=value", w))
		}
		u.env = append(withoutKey(u.env, key), entry{key, value})
	}
	return nil
}

func withoutKey(list []entry, key string) []entry {
	var out []entry
	for _, e := range list {
		if e.key != key {
			out = append(out, e)
		}
	}
	return out
}

func (u *unitReader) environmentFile(k setting) {
	path, optional := strings.CutPrefix(k.value, "-")
	switch {
	case path == "":
		u.envFiles = nil
	case !filepath.IsAbs(path):
		u.note(k.line, "EnvironmentFile=%s is left out: it is no absolute path", k.value)
	default:
		if optional {
			u.note(k.line, "%s may be missing under systemd; here the service waits for it", path)
		}
		u.envFiles = append(u.envFiles, path)
	}
}

func (u *unitReader) restart(k setting) {
	switch k.value {
	case "always":
		u.s.set("restart", "always")
	case "no":
		u.s.set("restart", `"no"`)
	case "on-failure":
		u.s.set("restart", "on-failure")
	case "on-abnormal", "on-abort", "on-watchdog":
		u.s.set("restart", "on-failure")
		u.note(k.line, "Restart=%s is restart: on-failure here: any end but exit 0", k.value)
	default:
		u.s.set("restart", "always")
		u.note(k.line, "Restart=%s is restart: always here", k.value)
	}
}

func (u *unitReader) span(k setting, key string, low time.Duration) {
	d, ok := unitSpan(k.value)
	if !ok || d < low || d == 0 {
		u.note(k.line, "%s=%s is left out", k.key, k.value)
		return
	}
	u.s.set(key, d.String())
}

func (u *unitReader) number(k setting, key string, low, high int) {
	n, err := strconv.Atoi(k.value)
	if err != nil || n < low || n > high {
		u.note(k.line, "%s=%s is left out: it should be a number from %d to %d", k.key, k.value, low, high)
		return
	}
	u.s.set(key, strconv.Itoa(n))
}

func (u *unitReader) limit(k setting, key string) {
	soft, _, pair := strings.Cut(k.value, ":")
	if pair {
		u.note(k.line, "%s=%s: the first of the two holds for both", k.key, k.value)
	}
	value := strings.ToUpper(soft)
	percent, ok := strings.CutSuffix(value, "%")
	share, err := strconv.ParseFloat(percent, 64)
	if value == "INFINITY" {
		value = "unlimited"
	} else if key == "cpu" && ok && err == nil && share >= 1 {
		value = strconv.FormatFloat(share/100, 'f', -1, 64)
	} else if key == "cpu" || !regexp.MustCompile(`^[0-9]{1,15}[KMGT]?$`).MatchString(value) || (key == "nofile" || key == "pids") && value[len(value)-1] > '9' {
		u.note(k.line, "%s=%s is left out", k.key, k.value)
		return
	}
	for i := range u.s.keys {
		if e := &u.s.keys[i]; e.key == "limits" {
			e.value = strings.TrimSuffix(e.value, "}") + ", " + key + ": " + value + "}"
			return
		}
	}
	u.s.set("limits", "{"+key+": "+value+"}")
}

// order says what a unit waits for; targets and devices are there before p2pnode.
func (u *unitReader) order(k setting) {
	for dep := range strings.FieldsSeq(k.value) {
		if name, ok := strings.CutSuffix(dep, ".service"); ok {
			key := "requires"
			if k.key == "After" || k.key == "Wants" {
				key = "after"
			}
			u.note(k.line, "%s=%s: if p2pnode runs %s too, say %s: [%s]", k.key, dep, name, key, name)
		} else if strings.HasSuffix(dep, ".socket") {
			u.note(k.line, "%s=%s: p2pnode makes no sockets; let the program listen by itself", k.key, dep)
		}
	}
}

// finish writes what was gathered.
func (u *unitReader) finish(line int) error {
	if len(u.commands) == 0 {
		return u.wrong(line, "the unit has no ExecStart")
	}
	last := len(u.commands) - 1
	for i, c := range u.commands[:last] {
		argv, err := u.argv(c)
		if err != nil {
			return u.wrong(u.lines[i], "ExecStart: "+err.Error())
		}
		u.before = append(u.before, argv)
	}
	argv, err := u.argv(u.commands[last])
	if err != nil {
		return u.wrong(u.lines[last], "ExecStart: "+err.Error())
	}
	if argv[0] == "/bin/sh" && strings.Contains(u.commands[last], "$") {
		u.note(u.lines[last], "variables in ExecStart are filled in by a shell")
	}
	u.s.keys = append([]entry{{"command", yamlList(argv)}}, u.s.keys...)
	if len(u.before) > 0 {
		lists := make([]string, len(u.before))
		for i, b := range u.before {
			lists[i] = yamlList(b)
		}
		u.s.set("before", "["+strings.Join(lists, ", ")+"]")
	}
	if len(u.env) > 0 {
		u.s.set("env", yamlMap(u.env))
	}
	if len(u.envFiles) > 0 {
		u.s.set("env_file", yamlList(u.envFiles))
	}
	u.outputs()
	if u.oneshot {
		u.note(line, "Type=oneshot: p2pnode keeps services that go on; this one runs once, at each start of p2pnode")
	}
	return nil
}

var unitParts = regexp.MustCompile(`^\s*([0-9]+(?:\.[0-9]+)?)\s*([a-z]*)`)

// unitSpan reads a span as units write it: seconds, or 5min 20s.
func unitSpan(text string) (total time.Duration, ok bool) {
	units := map[string]time.Duration{
		"": time.Second, "s": time.Second, "sec": time.Second, "second": time.Second, "seconds": time.Second, "ms": time.Millisecond, "msec": time.Millisecond, "us": time.Microsecond, "usec": time.Microsecond,
		"m": time.Minute, "min": time.Minute, "minute": time.Minute, "minutes": time.Minute, "h": time.Hour, "hr": time.Hour, "hour": time.Hour, "hours": time.Hour, "d": 24 * time.Hour, "day": 24 * time.Hour, "days": 24 * time.Hour,
	}
	for rest := strings.TrimSpace(text); rest != ""; rest = strings.TrimSpace(rest) {
		f := unitParts.FindStringSubmatch(rest)
		if f == nil || units[f[2]] == 0 {
			return 0, false
		}
		n, err := strconv.ParseFloat(f[1], 64)
		if err != nil || n > 1e6 {
			return 0, false
		}
		total += time.Duration(n * float64(units[f[2]]))
		rest = rest[len(f[0]):]
		ok = true
	}
	return total, ok
}
