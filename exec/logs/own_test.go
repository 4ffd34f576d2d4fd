package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"p2pnode/test/need"
)

// Who follows a log is told what the program writes into its own file, also after
// the file was moved away, cut, or was not there at first; the past comes first.
func TestOwnFileIsFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "own.log")
	put := func(text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	l := open(t)
	l.Follow(path)
	fifo := begin(t, l, 1)
	put("past 1\npast 2\npast 3\n")
	if got := lines(t, l, 2, time.Time{}); !slices.Equal(got, []string{"past 2", "past 3"}) {
		t.Errorf("the past: %q", got)
	}
	ctx, stop := context.WithCancel(t.Context())
	told := make(chan string, 100)
	over := make(chan struct{})
	go func() {
		defer close(over)
		l.Query(ctx, 1, time.Time{}, true, func(_ time.Time, text string) bool { told <- text; return true })
	}()
	defer func() { stop(); <-over }()
	want := func(text string) {
		t.Helper()
		select {
		case got := <-told:
			if got != text {
				t.Errorf("told %q, want %q", got, text)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("not told: %q", text)
		}
	}
	want("past 3")
	put("half a ")
	put("line\n")
	want("half a line")
	put("last of the old one\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	put("first of the new one\n")
	want("last of the old one")
	want("first of the new one")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	put("cut\n")
	want("cut")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * ownEvery) // looked at while nothing is there
	put("there again\n")
	want("there again")
	sh(t, fifo, "echo printed")
	want("printed")
}

// Who may write where the log lies does not have root read another one's file into it.
func TestOwnFileOverALink(t *testing.T) {
	need.Root(t, "it makes a link of another user")
	dir := t.TempDir()
	secret, log := filepath.Join(dir, "secret"), filepath.Join(dir, "own.log")
	if err := errors.Join(os.WriteFile(secret, []byte("root:$6$x\n"), 0o600), os.Symlink(secret, log), os.Lchown(log, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	if got := pastOwn(log, 10); len(got) != 0 {
		t.Errorf("read: %q", got)
	}
	o := followOwn(log)
	defer o.end()
	if o.now.f != nil {
		t.Error("followed")
	}
}

// A line that is written after our look, into a file that is then moved away, is read
// before the file that has its name next.
func TestNothingIsMissedBeforeAMove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "own.log")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	o := followOwn(path)
	defer o.end()
	var told []string
	emit := func(_ time.Time, text string) bool {
		told = append(told, text)
		if text == "seen" { // the program goes on, and its log is rotated, while this look is under way
			old, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer old.Close()
			old.WriteString(strings.Repeat("x", readChunk-5) + "\nlast\n")
			if err := errors.Join(os.Rename(path, path+".1"), os.WriteFile(path, []byte("new\n"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		return true
	}
	if err := os.WriteFile(path, []byte("seen\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		o.pull(emit)
	}
	if n := len(told); n != 4 || told[n-2] != "last" || told[n-1] != "new" {
		t.Errorf("told %d lines, the last ones %.20q", n, told[max(0, n-2):])
	}
}

// However much was written before a file is moved away, all of it is told, up to what
// nobody can read: that is counted.
func TestMuchIsReadBeforeAMove(t *testing.T) {
	path := filepath.Join(t.TempDir(), "own.log")
	for _, c := range []struct{ lines, told int }{{5 << 20 / 64, 5 << 20 / 64}, {24 << 20 / 64, ownPull / 64}} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		o := followOwn(path)
		defer o.end()
		var text bytes.Buffer
		for i := range c.lines {
			fmt.Fprintf(&text, "%063d\n", i)
		}
		err := errors.Join(os.WriteFile(path, text.Bytes(), 0o600), os.Rename(path, path+".1"), os.WriteFile(path, []byte("new\n"), 0o600))
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		o.pull(func(_ time.Time, s string) bool { told = append(told, s); return true })
		if c.told < c.lines {
			if want := fmt.Sprintf("[%d bytes came faster than they could be shown]", (c.lines-c.told)*64); told[0] != want {
				t.Errorf("%q, want %q", told[0], want)
			}
			told = told[1:]
		}
		if len(told) != c.told+1 || told[c.told] != "new" {
			t.Fatalf("of %d lines %d were told, the last one %.70q", c.lines, len(told)-1, told[len(told)-1])
		}
		for i, s := range told[:c.told] {
			if want := fmt.Sprintf("%063d", c.lines-c.told+i); s != want {
				t.Fatalf("line %d is %q, want %q", i, s, want)
			}
		}
	}
}
