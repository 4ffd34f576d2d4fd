package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"p2pnode"
)

func TestProcessKeys(t *testing.T) {
	o, err := resolve(t, `
services:
  web:
    command: [./web]
    env_file: [web.env, /etc/web.env]
    before: [[./migrate, --once], [./warm]]
    user: www
    group: web
    limits: {nofile: 4096, core: 0, memory: 1.5G, cpu: 0.5, memory_total: 2G}
    umask: 027
    nice: -5
    oom_score: -500
    new_privileges: true
  one: {shell: x, before: [./migrate, 7], limits: {nofile: unlimited, cpu: unlimited}, env_file: x.env}
`)
	if err != nil {
		t.Fatal(err)
	}
	web, one := o.Services[0], o.Services[1]
	if filepath.Base(web.EnvFile[0]) != "web.env" || !filepath.IsAbs(web.EnvFile[0]) || web.EnvFile[1] != "/etc/web.env" {
		t.Errorf("env_file %v", web.EnvFile)
	}
	if len(web.Before) != 2 || !slices.Equal(web.Before[0], []string{"./migrate", "--once"}) || !slices.Equal(one.Before[0], []string{"./migrate", "7"}) {
		t.Errorf("before %v and %v", web.Before, one.Before)
	}
	if web.Group != "web" || *web.Limits.NoFile != 4096 || *web.Limits.Core != 0 || *web.Limits.Memory != 3<<29 || *web.Limits.CPU != 500 || *web.Limits.MemoryTotal != 2<<30 || *one.Limits.CPU != p2pnode.Unlimited || *one.Limits.NoFile != p2pnode.Unlimited {
		t.Errorf("%+v", web)
	}
	if *web.Umask != 0o27 || web.Nice != -5 || *web.OOM != -500 || !web.Gain {
		t.Errorf("%+v", web)
	}
	if one.Umask != nil || one.OOM != nil || one.Limits.Core != nil {
		t.Errorf("what is not said is set: %+v", one)
	}
}

// Every way to say where output goes, and how much of it is kept.
func TestLogKey(t *testing.T) {
	type kept struct {
		to   p2pnode.LogMode
		size int64
		keep int
	}
	for text, want := range map[string]kept{
		"":                                     {},
		", log:":                               {},
		", log: capture":                       {to: p2pnode.LogCapture},
		", log: file":                          {to: p2pnode.LogFile},
		", log: {}":                            {},
		", log: {to: capture}":                 {to: p2pnode.LogCapture},
		", log: {to: file}":                    {to: p2pnode.LogFile},
		", log: {to: file}, log_file: /x":      {to: p2pnode.LogFile},
		", log: {size: 64MiB, keep: 5}":        {size: 64 << 20, keep: 5},
		", log: {size: 1G}, log_file: /x":      {size: 1 << 30},
		", log: {keep: 100}":                   {keep: 100},
		", log: {size: 1048576}":               {size: 1 << 20},
		", log: {to: file, size: 9M, keep: 3}": {p2pnode.LogFile, 9 << 20, 3},
	} {
		o, err := resolve(t, "services: {web: {shell: x"+text+"}}")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if s := o.Services[0]; (kept{s.Log, s.LogSize, s.LogKeep}) != want {
			t.Errorf("%s: %+v", text, s)
		}
	}
}

// What logs may take is held against the disk that they are on, or are to be on.
func TestLogsThatAreLargerThanTheirDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "not", "there", "yet")
	web := p2pnode.ServiceSpec{Name: "web"}
	if got := tooMuchLog([]p2pnode.ServiceSpec{web}, dir); got != nil {
		t.Errorf("of 16 MiB: %v", got)
	}
	web.LogSize, web.LogKeep = 64<<30, 100
	more := web
	more.Name, more.LogKeep = "db", 99
	got := tooMuchLog([]p2pnode.ServiceSpec{web, more}, dir)
	if len(got) != 1 || !strings.Contains(got[0], "may take 12864 GiB, those of web alone 6464 GiB") && !strings.Contains(got[0], "may take 1.286e+04 GiB") {
		t.Errorf("of 201 files of 64 GiB: %v", got)
	}
	web.Log, more.Log = p2pnode.LogFile, p2pnode.LogFile
	if got := tooMuchLog([]p2pnode.ServiceSpec{web, more}, dir); got != nil {
		t.Errorf("of what the services write themselves: %v", got)
	}
}

func TestReplicasAreNumbered(t *testing.T) {
	o, err := resolve(t, `
services:
  web:
    command: [./web, --port, "808{i}"]
    env: {NAME: "web-{i}"}
    env_file: "{i}.env"
    before: [mkdir, -p, "/tmp/{i}"]
    check: {http: "http://127.0.0.1:808{i}/"}
    log_file: "/var/log/web{i}.log"
    replicas: 2
  xargs: {command: [xargs, "-I{i}", echo, "{i}"]}
  solo: {command: [a, "{i}"], replicas: 1}
`)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"1", "2"} {
		s := o.Services[i]
		if s.Name != "web."+want || s.Command[2] != "808"+want || s.Env["NAME"] != "web-"+want || filepath.Base(s.EnvFile[0]) != want+".env" ||
			s.Before[0][2] != "/tmp/"+want || s.Check.HTTP != "http://127.0.0.1:808"+want+"/" || s.LogFile != "/var/log/web"+want+".log" {
			t.Errorf("replica %s: %+v, check %+v", want, s, s.Check)
		}
	}
	if o.Services[2].Command[3] != "{i}" {
		t.Error("a service without replicas has its text changed")
	}
	if o.Services[3].Command[1] != "1" || o.Services[3].Name != "solo" {
		t.Errorf("one replica: %+v", o.Services[3])
	}
}
