package logs

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// TakeAway reads what the keeper wrote down while exec was away, and removes it. A
// file that the keeper still writes to is left for the next call.
func (l *Log) TakeAway() {
	head := AwayPath(l.cfg.LogDir, l.cfg.Service)
	for _, path := range []string{head, head + AwayOlder, head + AwayNewest} {
		l.hand.Do(func() { l.takeFile(path) })
	}
}

// taking is written down before a file of the keeper's goes into the log: an exec
// that is killed in the middle of that leaves half of it there, which the next one
// cuts off before it begins anew. Each line is in the log once.
type taking struct {
	From Mark  `json:"from"`           // the file that is taken: its inode, its size
	Born int64 `json:"born,omitempty"` // an inode's number comes again; 0 where the file system does not tell
	Time int64 `json:"time"`           // of its last change
	Log  Mark  `json:"log"`            // where it goes
}

// same reports whether now is the file that was taken. A keeper that goes on with it,
// since exec was killed before it was removed, has made it longer.
func (was taking) same(now taking) bool {
	if was.From.File != now.From.File || was.Born != now.Born {
		return false
	}
	return was.Time == now.Time && was.From.At == now.From.At || was.Born != 0 && was.From.At < now.From.At
}

func (l *Log) takeFile(path string) {
	s := snap(path)
	if s.f == nil {
		return
	}
	defer s.close()
	info, err := s.f.Stat()
	if err != nil || writtenTo(s.f) {
		return
	}
	data := s.section(max(0, s.size-maxAway), s.size)
	if len(data) == 0 {
		os.Remove(path)
		return
	}
	note := filepath.Join(l.cfg.LogDir, "."+filepath.Base(path)+".taking")
	now := taking{From: Mark{File: s.inode, At: s.size}, Born: born(s.f), Time: info.ModTime().UnixNano()}
	var was taking
	if raw, err := p2pnode.ReadRegular(note); err == nil && json.Unmarshal(raw, &was) == nil && was.same(now) {
		l.file.cut(was.Log, data[:min(was.From.At, int64(len(data)))])
	}
	now.Log = l.file.mark()
	if raw, err := json.Marshal(now); err == nil {
		os.Remove(note) // whatever stands there
		os.WriteFile(note, raw, 0o600)
	}
	l.take(data)
	os.Remove(path)
	os.Remove(note)
}

// writtenTo reports whether the keeper still writes to f: it holds a lock on it.
func writtenTo(f *os.File) (locked bool) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	raw.Control(func(fd uintptr) {
		probe := unix.Flock_t{Type: unix.F_WRLCK}
		locked = unix.FcntlFlock(fd, unix.F_OFD_GETLK, &probe) == nil && probe.Type != unix.F_UNLCK
	})
	return locked
}

// cut takes away what was written since m, where that is the beginning of data.
func (r *rotating) cut(m Mark, data []byte) {
	now := r.mark()
	n := now.At - m.At
	if m.File == 0 || now.File != m.File || n <= 0 || n > int64(len(data)) {
		return
	}
	half := make([]byte, n)
	if _, err := r.f.ReadAt(half, m.At); err != nil || !bytes.Equal(half, data[:n]) {
		return
	}
	if r.f.Truncate(m.At) == nil {
		r.size = m.At
	}
}
