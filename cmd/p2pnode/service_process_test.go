package main

import (
	"path/filepath"
	"slices"
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
