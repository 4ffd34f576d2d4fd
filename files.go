package p2pnode

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks are as many links as the kernel follows in one path.
const maxLinks = 40

// ShareOfFiles is how many of this process's descriptors may be held by callers: a
// quarter of what the system allows it, most at the most. The rest is for its work.
func ShareOfFiles(most int) int {
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil || limit.Cur/4 >= uint64(most) {
		return most
	}
	return int(limit.Cur / 4)
}

// OpenRegular opens a regular file for reading. It waits for nobody and takes nothing
// else: what stands at path may be a FIFO by now. flags may add unix.O_NOFOLLOW.
func OpenRegular(path string, flags int) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|flags, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("it is no regular file")}
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// ReadRegular is all of a regular file; like OpenRegular it waits for nobody.
func ReadRegular(path string) ([]byte, error) {
	f, _, err := OpenRegular(path, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// OpenFor is OpenRegular for a file that others asked for and that lies where they may
// write: who may read everything must not read for them what they may not. A symbolic link
// counts, anywhere in path, if root or this process's user made it, or whoever made it
// owns the file that it leads to.
func OpenFor(path string) (*os.File, fs.FileInfo, error) {
	at, makers, err := follow(path)
	if err != nil {
		return nil, nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return nil, nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	for _, maker := range makers {
		if maker != st.Uid {
			return nil, nil, &fs.PathError{Op: "open", Path: path, Err: fmt.Errorf("uid %d made a link on the way to it, and uid %d owns it", maker, st.Uid)}
		}
	}
	// What was looked at is what is opened, whatever the path leads to by now.
	return OpenRegular(fmt.Sprintf("/proc/self/fd/%d", at), 0)
}

// follow walks a path and returns where it ends (O_PATH), and whose links it went over.
func follow(path string) (at int, makers []uint32, err error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	begin := func(path string) (int, []string, error) {
		root := "."
		if strings.HasPrefix(path, "/") {
			root = "/"
		}
		fd, err := unix.Open(root, flags|unix.O_DIRECTORY, 0)
		return fd, strings.Split(path, "/"), err
	}
	at, rest, err := begin(path)
	if err != nil {
		return -1, nil, err
	}
	for links := 0; len(rest) > 0; {
		name := rest[0]
		if rest = rest[1:]; name == "" {
			continue
		}
		next, err := unix.Openat(at, name, flags, 0)
		if err != nil {
			unix.Close(at)
			return -1, nil, err
		}
		target, maker, err := linkOf(next)
		if err != nil || target == "" {
			unix.Close(at)
			if at = next; err == nil {
				continue
			}
			unix.Close(at)
			return -1, nil, err
		}
		unix.Close(next)
		if links++; links > maxLinks {
			unix.Close(at)
			return -1, nil, unix.ELOOP
		}
		if maker != 0 && maker != uint32(os.Geteuid()) {
			makers = append(makers, maker)
		}
		more := strings.Split(target, "/")
		if strings.HasPrefix(target, "/") {
			unix.Close(at)
			if at, more, err = begin(target); err != nil {
				return -1, nil, err
			}
		}
		rest = slices.Concat(more, rest)
	}
	return at, makers, nil
}

// linkOf is where a link leads and who made it; "" of what is none.
func linkOf(fd int) (target string, maker uint32, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", 0, err
	}
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	return string(buf[:max(0, n)]), st.Uid, err
}
