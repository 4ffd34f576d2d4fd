package bin

import (
	"os"
	"syscall"
	"testing"
)

// Write makes a program of text. No process is forked meanwhile: a child would have
// the file open for writing until it runs its own program, and until then whoever
// runs this one is told "text file busy" (golang/go issue 22315).
func Write(t testing.TB, path string, text []byte) {
	t.Helper()
	syscall.ForkLock.RLock()
	err := os.WriteFile(path, text, 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
}

// Copy copies a program with something at its end: another file, the same program.
func Copy(t testing.TB, from, to, end string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	Write(t, to, append(raw, end...))
}
