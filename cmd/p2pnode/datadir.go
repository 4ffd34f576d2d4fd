package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"p2pnode"
)

// clientDir is the folder of the daemon that a client means: --data, else the one
// above the run folder of the socket that P2PNODE_SOCKET names, else where a
// daemon of this user keeps its state.
func clientDir(flag string) (string, error) {
	if socket := os.Getenv(envPrefix + "SOCKET"); socket != "" && flag == "" {
		if filepath.Ext(socket) == ".sock" {
			socket = filepath.Dir(socket)
		}
		return filepath.Abs(filepath.Dir(socket))
	}
	return dataDir(flag)
}

// dataDir is where a daemon keeps its state: the flag, else P2PNODE_DATA, else the
// place where this user's daemons go.
func dataDir(flag string) (string, error) {
	dir := flag
	if dir == "" {
		dir = os.Getenv(envPrefix + "DATA")
	}
	if dir == "" && os.Geteuid() == 0 {
		dir = "/var/lib/p2pnode"
	}
	if dir == "" {
		state := os.Getenv("XDG_STATE_HOME")
		if state == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return "", &p2pnode.Error{
					Code: "no-data-dir", Text: "no place for the data folder: neither HOME nor XDG_STATE_HOME is set",
					Fix: "give one with --data DIR", Exit: p2pnode.ExitUsage,
				}
			}
			state = filepath.Join(home, ".local", "state")
		}
		dir = filepath.Join(state, "p2pnode")
	}
	return filepath.Abs(dir)
}

// makeDataDir makes dir and the folders in it, private to this user, and says
// what is wrong where it cannot be used.
func makeDataDir(dir string) error {
	for _, d := range []string{dir, filepath.Join(dir, "run"), filepath.Join(dir, "logs")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return dataError(dir, err)
		}
	}
	info, err := os.Stat(dir)
	if err != nil {
		return dataError(dir, err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && int(st.Uid) != os.Geteuid() {
		return &p2pnode.Error{
			Code: "data-owner", Exit: p2pnode.ExitFailed,
			Text: fmt.Sprintf("data folder %s belongs to user %d, this is user %d", dir, st.Uid, os.Geteuid()),
			Fix:  "run as its owner, or give another folder with --data DIR",
		}
	}
	// Access rather than a test file: a full disk must not keep a host from being
	// supervised.
	if err := unix.Access(filepath.Join(dir, "run"), unix.W_OK|unix.X_OK); err != nil {
		return dataError(dir, err)
	}
	return nil
}

func dataError(dir string, err error) error {
	fix := "give another folder with --data DIR"
	if errors.Is(err, fs.ErrPermission) {
		fix = "run as its owner, or give another folder with --data DIR"
	}
	return &p2pnode.Error{Code: "data-dir", Text: fmt.Sprintf("cannot use data folder %s: %v", dir, bare(err)), Fix: fix, Exit: p2pnode.ExitFailed}
}
