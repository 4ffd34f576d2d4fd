package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"p2pnode"
)

// importText imports text as a file of the given name; what comes out must be what
// config check passes.
func importText(t *testing.T, name, text string) (yaml, notes string, err error) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := importFile(path, "")
	if err != nil {
		return "", "", err
	}
	for _, n := range got.notes {
		notes += strings.TrimPrefix(strings.Join([]string{itoa(n.line), n.text}, ": "), "0: ") + "\n"
	}
	yaml = got.yaml(name)
	if _, err := resolve(t, yaml); err != nil {
		t.Fatalf("config check refuses what import wrote: %v\n%s", err, yaml)
	}
	_, yaml, _ = strings.Cut(yaml, "services:\n")
	return strings.ReplaceAll(yaml, dir, "DIR"), notes, nil
}

func TestImport(t *testing.T) {
	for _, c := range []struct{ what, file, text, yaml, notes string }{
		{"a Procfile", "Procfile", "# one\nweb: bundle exec puma -p $PORT # x\nworker.1:  rake jobs\n", `
  web:
    shell: "bundle exec puma -p $PORT # x"
    cwd: DIR
  worker-1:
    shell: "rake jobs"
    cwd: DIR
`, `
2: web wants $PORT, which p2pnode does not give out: say env: {PORT: ...}
3: "worker.1" is called worker-1
`},
		{"a program", "web.conf", "[program:web]\ncommand=/bin/web --name \"a b\" ; the comment\ndirectory=%(here)s/x\nautostart=false\nstartsecs=3\nstopwaitsecs=20\nstopsignal=SIGQUIT\nuser=www\n", `
  web:
    restart: on-failure
    command: [/bin/web, --name, "a b"]
    cwd: DIR/x
    start: manual
    stop: {timeout: 20s, signal: QUIT}
    user: www
`, `
5: startsecs is left out: say check: so that p2pnode knows when web is ready
`},
		{"many of it", "all.ini", "[supervisord]\nnodaemon=true\n[program:q]\ncommand=q %(process_num)02d\nprocess_name=%(program_name)s_%(process_num)d\nnumprocs=3\nautorestart=true\nenvironment=A=\"1,2\",\n  B='%(program_name)s',C=%%\n[program:q-]\ncommand=x\nautorestart=false\nstopsignal=RTMIN\n[group:g]\nprograms=q\n", `
  q:
    restart: always
    command: [q, "{i}"]
    replicas: 3
    env: {A: "1,2", B: q, C: "%"}
  q-2:
    restart: "no"
    command: [x]
`, `
4: %(process_num)02d: numbers are 1, 2 ... and not padded
5: %(process_num)d: numbers begin at 1, not at 0
10: "q-" is called q-2
13: the stop signal RTMIN is left out: p2pnode sends one of TERM, INT, QUIT, HUP, USR1, USR2, WINCH, KILL
14: group g is left out: give its services labels: {group: g}
`},
		{"a unit", "web.service", `[Unit]
Description=The web
After=network.target postgresql.service
Requires=postgresql.service
[Service]
Type=notify
ExecStartPre=-/bin/mkdir -p /run/web
ExecStart=/usr/bin/web \
  --port 8080 'a b'
Environment="A=1 2" B=3
Environment=A=4
EnvironmentFile=-/etc/default/web
WorkingDirectory=/srv
User=www
Group=www
Restart=on-failure
RestartSec=5
TimeoutStopSec=1min 30s
WatchdogSec=2
KillSignal=SIGINT
LimitNOFILE=1024:65536
LimitCORE=infinity
TasksMax=4%
CPUQuota=150%
MemoryMax=2G
Nice=-5
OOMScoreAdjust=-900
UMask=0027
PrivateTmp=true
[Install]
WantedBy=multi-user.target
`, `
  web:
    command: [/usr/bin/web, --port, "8080", "a b"]
    restart: on-failure
    ready: notify
    cwd: /srv
    user: www
    group: www
    stop: {timeout: 1m30s, signal: INT}
    watchdog: 2s
    limits: {nofile: 1024, core: unlimited, cpu: 1.5, memory_total: 2G}
    nice: -5
    oom_score: -900
    umask: "0027"
    before: [[/bin/mkdir, -p, /run/web]]
    env: {B: "3", A: "4"}
    env_file: [/etc/default/web]
`, `
3: After=postgresql.service: if p2pnode runs postgresql too, say after: [postgresql]
4: Requires=postgresql.service: if p2pnode runs postgresql too, say requires: [postgresql]
7: the prefix - of ExecStartPre is left out
12: /etc/default/web may be missing under systemd; here the service waits for it
17: RestartSec is left out: a first restart is at once, then p2pnode waits longer each time
21: LimitNOFILE=1024:65536: the first of the two holds for both
23: TasksMax=4% is left out
29: PrivateTmp is left out
`},
		{"variables, forking, a template", "x@.service", "[Service]\nType=forking\nPIDFile=/run/x.pid\nExecStart=/usr/bin/x -p ${PORT} %i\nRestart=on-abort\n", `
  x:
    command: [/bin/sh, -c, "exec /usr/bin/x -p ${PORT} %i"]
    restart: on-failure
`, `
x@.service is a template: %i is not known here
2: Type=forking: p2pnode watches the process that it starts; give x the option that keeps it in the foreground
3: PIDFile is left out: p2pnode watches the process that it starts; keep it in the foreground
4: %i in ExecStart is not known here and stays as it is
5: Restart=on-abort is restart: on-failure here: any end but exit 0
4: variables in ExecStart are filled in by a shell
`},
		{"what supervisord says of all", "all.conf", "[supervisord]\nuser=www\numask=027\nminfds=65536\nminprocs=200\ndirectory=/srv\nenvironment=A=1,B=\"2\"\n[program:web]\ncommand=web\nenvironment=B=3,C=4\nuser=web\nstartretries=3\nnumprocs_start=0\nstdout_logfile=/dev/stdout\nstderr_logfile=NONE\nredirect_stderr=false\nstdout_syslog=true\n[program:db]\ncommand=db\nstdout_logfile=AUTO\nredirect_stderr=true\n", `
  web:
    restart: on-failure
    user: web
    umask: "027"
    limits: {nofile: 65536}
    env: {A: "1", B: "3", C: "4"}
    command: [web]
  db:
    restart: on-failure
    user: www
    umask: "027"
    limits: {nofile: 65536}
    env: {A: "1", B: "2"}
    command: [db]
`, `
5: minprocs is left out: say limits: {pids}
6: directory of [supervisord] is left out: say cwd: for each service that wants it
12: startretries is left out: p2pnode never gives a service up, what keeps failing is tried once a minute
13: numprocs_start is left out: numbers begin at 1
14: stdout_logfile=/dev/stdout is left out: p2pnode keeps the output, see p2pnode logs web
15: stderr_logfile=NONE is left out: p2pnode keeps the output, see p2pnode logs web
16: redirect_stderr=false: both streams are in one log, in their order
17: stdout_syslog is left out: p2pnode sends nothing to syslog, see p2pnode logs web
`},
		{"how much of the output is kept", "all.conf", "[program:a]\ncommand=a\nstdout_logfile=/var/log/a\nstdout_logfile_maxbytes=50MB\nstdout_logfile_backups=10\nstderr_logfile_maxbytes=1MB\n[program:b]\ncommand=b\nstdout_logfile=/dev/stdout\nstdout_logfile_maxbytes=0\nstdout_logfile_backups=0\n[program:c]\ncommand=c\nstdout_logfile_maxbytes=100kb\nstdout_logfile_backups=0\n[program:d]\ncommand=d\nstdout_logfile_maxbytes=0\n[program:e]\ncommand=e\nstdout_logfile_maxbytes=1073741824\nstdout_logfile_backups=200\n[program:f]\ncommand=f\nstdout_logfile_maxbytes=5 MB\nstdout_logfile_backups=few\n[program:g]\ncommand=g\nstdout_logfile_maxbytes=1TB\n", `
  a:
    restart: on-failure
    command: [a]
    log: {size: 50M, keep: 10}
  b:
    restart: on-failure
    command: [b]
  c:
    restart: on-failure
    command: [c]
    log: {size: 1M, keep: 1}
  d:
    restart: on-failure
    command: [d]
  e:
    restart: on-failure
    command: [e]
    log: {size: 1073741824, keep: 100}
  f:
    restart: on-failure
    command: [f]
  g:
    restart: on-failure
    command: [g]
`, `
3: stdout_logfile=/var/log/a is left out: p2pnode keeps the output, see p2pnode logs a
9: stdout_logfile=/dev/stdout is left out: p2pnode keeps the output, see p2pnode logs b
14: stdout_logfile_maxbytes=100kb: the least is 1M
15: stdout_logfile_backups=0: p2pnode keeps from 1 to 100
18: stdout_logfile_maxbytes=0 is left out: p2pnode bounds what it keeps, say log: {size, keep}
22: stdout_logfile_backups=200: p2pnode keeps from 1 to 100
25: stdout_logfile_maxbytes=5 MB is left out
26: stdout_logfile_backups=few is left out
29: stdout_logfile_maxbytes=1TB is left out
`},
		{"where a unit's output goes, and its limits", "out.service", "[Unit]\nStartLimitBurst=5\n[Service]\nExecStart=/bin/out\nStandardOutput=file:/var/log/out\nStandardError=append:/var/log/out\nSendSIGKILL=no\n[Install]\nWantedBy=multi-user.target web.service\n", `
  out:
    command: [/bin/out]
    restart: "no"
    log: file
    log_file: /var/log/out
`, `
2: StartLimitBurst is left out: p2pnode never gives a service up, what keeps failing is tried once a minute
5: StandardOutput=file:/var/log/out: p2pnode appends to the file
7: SendSIGKILL=no: p2pnode kills what has not ended in its stop: {timeout}
9: WantedBy=web.service is left out: the service is started with p2pnode; what waits for it says so by after: or requires:
`},
		{"a unit's output goes nowhere", "out.service", "[Service]\nExecStart=/bin/out\nStandardOutput=null\nStandardError=journal\n", `
  out:
    command: [/bin/out]
    restart: "no"
`, `
3: StandardOutput=null is left out: p2pnode keeps the output, see p2pnode logs out
`},
		{"errors went elsewhere, and a user", "out.service", "[Service]\nStandardError=journal\nStandardOutput=append:/var/log/out\nExecStart=/bin/out\nUser=www\n", `
  out:
    command: [/bin/out]
    restart: "no"
    log: file
    log_file: /var/log/out
    user: www
`, `
2: StandardError=journal is left out: both streams go the same way
3: /var/log/out is opened as www here, not as root: it must be his to write
`},
		{"known by what is in it", "web", "[Service]\nExecStart=/bin/a\nExecStart=/bin/b\nType=oneshot\n", `
  web:
    command: [/bin/b]
    restart: "no"
    before: [[/bin/a]]
`, `
1: Type=oneshot: p2pnode keeps services that go on; this one runs once, at each start of p2pnode
`},
	} {
		t.Run(c.what, func(t *testing.T) {
			yaml, notes, err := importText(t, c.file, c.text)
			if err != nil {
				t.Fatal(err)
			}
			if yaml != c.yaml[1:] {
				t.Errorf("wrote\n%swant%s", yaml, c.yaml)
			}
			if notes != c.notes[1:] {
				t.Errorf("said\n%swant%s", notes, c.notes)
			}
		})
	}
}

// A Procfile's .env is the services' env_file; what other tools would fill in is said.
func TestImportEnvBesideAProcfile(t *testing.T) {
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(dir+"/Procfile", []byte("web: x\ndb: y\n"), 0o600), os.WriteFile(dir+"/.env", []byte("A=$HOME/x\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	got, err := importFile(dir+"/Procfile", "")
	if err != nil {
		t.Fatal(err)
	}
	if text := got.yaml("Procfile"); strings.Count(text, "env_file: "+dir+"/.env") != 2 || len(got.notes) != 1 || !strings.Contains(got.notes[0].text, "not filled in") {
		t.Errorf("%s\n%v", text, got.notes)
	}
}

func TestImportRefuses(t *testing.T) {
	for _, c := range []struct{ file, text, want string }{
		{"Procfile", "web bundle\n", `Procfile:1: "web bundle" is not name: command`},
		{"Procfile", "\n", "no service is in it, read as procfile"},
		{"a.conf", "[program:a]\nautostart=true\n", "a.conf:1: program a has no command"},
		{"a.conf", "[program:a]\ncommand='x\n", "a.conf:2: command: a quote is not closed"},
		{"a.conf", "[program:a]\ncommand=x\nenvironment=A B\n", `a.conf:3: environment: "A B" is no KEY="value"`},
		{"a.service", "[Service]\nUser=x\n", "a.service:1: the unit has no ExecStart"},
		{"a.service", "[Service]\nnonsense\n", "a.service:2: \"nonsense\" is no key=value"},
	} {
		_, _, err := importText(t, c.file, c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) || p2pnode.ExitCode(err) != p2pnode.ExitUsage {
			t.Errorf("%q: %v (exit %d), want %s", c.text, err, p2pnode.ExitCode(err), c.want)
		}
	}
	if _, err := importFile(filepath.Join(t.TempDir(), "none"), ""); p2pnode.ExitCode(err) != p2pnode.ExitUsage {
		t.Errorf("no file: %v", err)
	}
	path := filepath.Join(t.TempDir(), "Procfile")
	os.WriteFile(path, []byte("a: b\n"), 0o600)
	if _, err := importFile(path, "upstart"); err == nil || !strings.Contains(err.Error(), "--from") {
		t.Errorf("%v", err)
	}
}

// Whatever import takes, config check passes.
func FuzzImport(f *testing.F) {
	f.Add("procfile", "web: a \"b\" \u0085\nweb: c\n")
	f.Add("supervisord", "[program:a b]\ncommand=x %(here)s\nenvironment=A=\"\\\"\"\numask=9\nnumprocs=0\nstopwaitsecs=-1\n")
	f.Add("systemd", "[Service]\nExecStart=@/bin/x $A\nNice=99\nLimitNOFILE=1K\nWatchdogSec=0\nTimeoutStopSec=infinity\nEnvironment=A=1\n")
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, kind, text string) {
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Skip(err)
		}
		got, err := importFile(path, kind)
		if err != nil {
			if p2pnode.ExitCode(err) != p2pnode.ExitUsage {
				t.Fatalf("%v: exit %d", err, p2pnode.ExitCode(err))
			}
			return
		}
		yaml := got.yaml("file")
		if _, err := resolve(t, yaml); err != nil {
			t.Fatalf("%q became\n%s\n%v", text, yaml, err)
		}
	})
}
