package logs

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"p2pnode"

	"golang.org/x/sys/unix"
)

// TakeAway reads what the keeper wrote down while exec was away, and removes it. A
// file that the keeper still writes to is left for the next call.
func (l *Log) TakeAway() {
	head := AwayPath(l.cfg.LogDir, l.cfg.Service)
	files := []string{head, head + AwayOlder, head + AwayNewest}
	var notes []taking
	l.hand.Do(func() { notes = l.takings(files) })
	for _, path := range files {
		l.hand.Do(func() { notes = l.takeFile(path, notes) })
	}
}

// taking is written down before a file of the keeper's goes into the log, since exec may
// be killed in the middle of that, or before it removed the file. The keeper goes on in
// it then, and may give it another name: it is known by its inode and its birth. What
// the log has of it is not taken again: each line is in the log once.
type taking struct {
	From Mark  `json:"from"`          // the file that is taken: At is its size
	Time int64 `json:"time"`          // of its last change
	Had  int64 `json:"had,omitempty"` // bytes of it that were in the log before that, or too many for it
	Log  Mark  `json:"log,omitzero"`  // where the others go; no place: none of them did
}

// same reports whether now is the file that was taken. A keeper that goes on with it has
// made it longer; where a file system does not tell when a file was made, only one that
// is as it was is known.
func (was taking) same(now taking) bool {
	if !was.From.sameFile(now.From) {
		return false
	}
	return was.Time == now.Time && was.From.At == now.From.At || was.From.Born != 0 && was.From.Born == now.From.Born && was.From.At <= now.From.At
}

// takings are the notes that an exec left which was killed, of files that are there
// still. What the log had of each by then is settled before anything else is written
// to it.
func (l *Log) takings(files []string) (left []taking) {
	raw, err := p2pnode.ReadRegular(l.takingPath())
	if err != nil {
		return nil
	}
	var notes []taking
	json.Unmarshal(raw, &notes)
	log := l.file.files()
	defer log.close()
	for _, path := range files {
		s := snap(path)
		if s.f == nil {
			continue
		}
		if was := noteOf(s, notes); was != nil {
			was.Had = max(was.Had, was.From.At-maxAway, 0)
			was.Had += log.had(was.Log, s.section(was.Had, was.From.At))
			was.Log = Mark{}
			left = append(left, *was)
		}
		s.close()
	}
	l.noteTakings(left)
	return left
}

func (s snapshot) taking() (now taking) {
	if info, err := s.f.Stat(); err == nil {
		now = taking{From: Mark{File: s.inode, Born: born(s.f), At: s.size}, Time: info.ModTime().UnixNano()}
	}
	return now
}

func noteOf(s snapshot, notes []taking) *taking {
	now := s.taking()
	for _, was := range notes {
		if was.same(now) {
			return &was
		}
	}
	return nil
}

// had is how many of the bytes that go to m are there: nobody else has written to the
// log since.
func (c *chain) had(m Mark, data []byte) int64 {
	at, ok := c.place(m)
	if !ok {
		return 0
	}
	there := c.text(at, min(c.size, at+int64(len(data))+1))
	if !bytes.HasPrefix(data, there) {
		return 0
	}
	return int64(len(there))
}

func (l *Log) takingPath() string {
	return filepath.Join(l.cfg.LogDir, "."+l.cfg.Service+".away.taking")
}

// noteTakings replaces the notes as a whole. They outlive a kill of exec: no sync.
func (l *Log) noteTakings(notes []taking) {
	path := l.takingPath()
	if len(notes) == 0 {
		os.Remove(path)
		return
	}
	next := path + ".new"
	os.Remove(next) // whatever stands there
	raw, err := json.Marshal(notes)
	if err == nil {
		err = os.WriteFile(next, raw, 0o600)
	}
	if err == nil {
		os.Rename(next, path)
	}
}

// takeFile takes one file, of which notes may know; it returns the notes of the others.
func (l *Log) takeFile(path string, notes []taking) []taking {
	s := snap(path)
	if s.f == nil {
		return notes
	}
	defer s.close()
	if writtenTo(s.f) {
		return notes
	}
	now := s.taking()
	if was := noteOf(s, notes); was != nil {
		now.Had = was.Had
		notes = slices.DeleteFunc(slices.Clone(notes), func(n taking) bool { return n == *was })
	}
	now.Had = max(now.Had, s.size-maxAway, 0)
	if data := s.section(now.Had, s.size); len(data) > 0 {
		l.file.mend() // what it says is no part of what follows
		now.Log = l.file.mark()
		l.noteTakings(append(slices.Clone(notes), now))
		l.take(data)
	}
	os.Remove(path)
	l.noteTakings(notes)
	return notes
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
