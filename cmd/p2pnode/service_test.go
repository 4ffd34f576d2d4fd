package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"p2pnode"
	"p2pnode/test/need"
)

func TestTheUnitInDeployIsTheOneThatIsInstalled(t *testing.T) {
	raw, err := os.ReadFile("../../deploy/p2pnode.service")
	if err != nil {
		t.Fatal(err)
	}
	if string(raw) != unit(unitBinary, unitConfig, "") {
		t.Error("deploy/p2pnode.service is not what p2pnode service install --print says: bin/p2pnode service install --print > deploy/p2pnode.service")
	}
}

// systemd itself has nothing at all to say of the unit, also with odd paths. Of this
// machine's units it knows the targets alone: of others it may say what it likes.
func TestSystemdTakesTheUnit(t *testing.T) {
	need.Program(t, "systemd-analyze", "systemd")
	dir := t.TempDir()
	odd := filepath.Join(dir, `a $HOME "b" 100%`)
	if err := os.MkdirAll(odd, 0o755); err != nil {
		t.Fatal(err)
	}
	known := filepath.Join(dir, "known")
	targets, _ := filepath.Glob("/lib/systemd/system/*.target")
	if err := os.Mkdir(known, 0o755); err != nil || len(targets) == 0 {
		t.Fatalf("%v, %d targets", err, len(targets))
	}
	for _, target := range targets {
		if err := os.Symlink(target, filepath.Join(known, filepath.Base(target))); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"p2pnode.service": unit("/bin/true", unitConfig, ""), "odd.service": unit("/bin/true", filepath.Join(odd, "p.yaml"), filepath.Join(odd, "data"))} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		verify := exec.Command("systemd-analyze", "verify", "--man=no", path)
		verify.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+known)
		if out, err := verify.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

func TestUnitWord(t *testing.T) {
	for in, want := range map[string]string{"/usr/bin/x": "/usr/bin/x", "/a b": `"/a b"`, `/a"b`: `"/a\"b"`, "/100%/$x": "/100%%/$$x"} {
		if got := unitWord(in); got != want {
			t.Errorf("unitWord(%q) = %s, want %s", in, got, want)
		}
	}
}

func TestServiceInstall(t *testing.T) {
	need.Root(t, "only root installs a unit")
	dir := t.TempDir()
	var calls []string
	refuse, active := "", false
	s := systemd{unit: filepath.Join(dir, "p2pnode.service"), booted: filepath.Join(dir, "booted"), call: func(_ context.Context, args ...string) error {
		if args[0] == "is-active" && !active {
			return errors.New("inactive")
		}
		calls = append(calls, strings.Join(args, " "))
		if refuse == args[0] {
			return errors.New("refused")
		}
		return nil
	}}
	install := func(text string, force bool) error {
		_, err := s.install(t.Context(), text, force)
		return err
	}
	code := func(err error) string {
		if e, ok := errors.AsType[*p2pnode.Error](err); ok {
			return e.Code
		}
		return ""
	}
	if err := s.usable("x"); code(err) != "no-systemd" || !strings.Contains(err.(*p2pnode.Error).Fix, "--supervised yes") {
		t.Errorf("without systemd: %v", err)
	}
	if err := os.Mkdir(s.booted, 0o755); err != nil {
		t.Fatal(err)
	}
	text := unit("/usr/bin/p2pnode", "/etc/x.yaml", "")
	if err := errors.Join(s.usable("x"), install(text, false)); err != nil {
		t.Fatal(err)
	}
	if raw, _ := os.ReadFile(s.unit); string(raw) != text {
		t.Errorf("wrote %q", raw)
	}
	if want := []string{"daemon-reload", "enable --now p2pnode.service"}; !slices.Equal(calls, want) {
		t.Errorf("called %q, want %q", calls, want)
	}
	if said, err := s.install(t.Context(), text, false); err != nil || !strings.HasSuffix(said, "started") {
		t.Errorf("again: %q, %v", said, err)
	}
	active = true
	for text, want := range map[string]bool{text: false, text + "# other\n": true} {
		if said, err := s.install(t.Context(), text, false); err != nil || !strings.Contains(said, "goes on as it was") || strings.Contains(said, "from the next start on") != want {
			t.Errorf("over an active unit: %q, %v", said, err)
		}
		if err := os.WriteFile(s.unit, []byte(unit("/usr/bin/p2pnode", "/etc/x.yaml", "")), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.unit, []byte("[Service]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := install(text, false); code(err) != "exists" {
		t.Errorf("over another's unit: %v", err)
	}
	if err := s.uninstall(t.Context(), false); code(err) != "exists" {
		t.Errorf("another's unit away: %v", err)
	}
	if err := install(text, true); err != nil {
		t.Errorf("forced: %v", err)
	}
	refuse = "disable"
	if err := s.uninstall(t.Context(), false); err == nil {
		t.Error("what systemctl refused is no success")
	}
	refuse, calls = "", nil
	if err := s.uninstall(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.unit); !errors.Is(err, os.ErrNotExist) || !slices.Equal(calls, []string{"disable --now p2pnode.service", "daemon-reload"}) {
		t.Errorf("%v, called %q", err, calls)
	}
	if err := s.uninstall(t.Context(), false); code(err) != "not-installed" {
		t.Errorf("twice: %v", err)
	}
}
