package p2pnode

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"p2pnode/test/need"
)

// Who may read everything follows nobody's link to what that one does not own: not at the
// end of a path, not in its middle, not over a second link.
func TestWhoseLinksCount(t *testing.T) {
	need.Root(t, "it makes links of other users")
	const user, other = 12345, 12346
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	file := func(name string, uid int) {
		must(os.WriteFile(in(name), []byte(name), 0o600), os.Chown(in(name), uid, uid))
	}
	link := func(to, name string, uid int) { must(os.Symlink(to, in(name)), os.Lchown(in(name), uid, uid)) }
	must(os.Mkdir(in("safe"), 0o700), os.Mkdir(in("app"), 0o755), os.Chown(in("app"), user, user))
	file("safe/secret", 0)
	file("app/log", user)
	file("app/foreign", other)
	link("log", "app/current", user)
	link(in("app/log"), "app/absolute", user)
	link(in("safe/secret"), "app/end", user)
	link(in("safe"), "app/middle", user)
	link("../app/../safe/secret", "app/up", user)
	link("foreign", "app/others", user)
	link(in("safe/secret"), "roots", 0)
	link(in("roots"), "app/second", user)
	link(in("app/current"), "both", 0)
	link("loop", "loop", 0)
	link("nowhere", "app/dangling", user)
	must(syscall.Mkfifo(in("app/fifo"), 0o600))
	refused := "made a link on the way"
	for name, want := range map[string]string{
		"app/log": "", "app/current": "", "app/absolute": "", "roots": "", "both": "", "safe//./secret": "", "app/../app/log": "",
		"app/end": refused, "app/middle/secret": refused, "app/up": refused, "app/others": refused, "app/second": refused,
		"loop": "too many levels", "app/dangling": "no such file", "app/log/x": "not a directory", "app/fifo": "no regular file", "app": "no regular file",
	} {
		f, info, err := OpenFor(in(name))
		if err == nil {
			f.Close()
		}
		if want == "" && (err != nil || info.Size() == 0) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	if _, _, err := OpenFor(in("app/dangling")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	t.Chdir(dir)
	f, _, err := OpenFor("app/current")
	must(err, f.Close())
}
