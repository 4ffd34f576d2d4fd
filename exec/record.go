package exec

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"p2pnode"
	"p2pnode/exec/disk"
	"p2pnode/exec/logs"

	"golang.org/x/sys/unix"
)

// record is what the disk remembers of one service. It is written before a fork
// (Starting) and again right after it (PID); the page cache survives a kill -9 of
// exec, so neither write is synced.
type record struct {
	Service   string              `json:"service"`
	Inc       p2pnode.Incarnation `json:"incarnation"`
	Starting  bool                `json:"starting,omitempty"`
	Preparing bool                `json:"preparing,omitempty"` // only programs of Before have run yet
	PID       int                 `json:"pid,omitempty"`
	Ticks     uint64              `json:"start_ticks,omitempty"` // field 22 of /proc/PID/stat
	BootID    string              `json:"boot_id,omitempty"`
	PidNS     string              `json:"pid_ns,omitempty"`
	Fifo      string              `json:"fifo,omitempty"`
	Log       logs.Mark           `json:"log,omitzero"`    // where this run begins in the log's files
	Last      *p2pnode.Exit       `json:"last,omitempty"`  // of the life before
	Ended     *p2pnode.Exit       `json:"ended,omitempty"` // of this one, where it is left so
	Started   time.Time           `json:"started,omitzero"`
	Starts    []time.Time         `json:"starts,omitempty"` // restart budget
	Restarts  int                 `json:"restarts,omitempty"`
	Replaced  *replaced           `json:"replaced,omitempty"` // the failure that this life mended
	Earlier   []mended            `json:"earlier,omitempty"`  // repairs before that one, of the last minute, oldest first
}

// replaced is a failure as the start that mended it knew it. An exec that is killed
// before anybody has heard of it leaves the story to the next one.
type replaced struct {
	Target   string        `json:"target"`
	Class    p2pnode.Class `json:"class"`
	By       p2pnode.By    `json:"by"`
	Detected time.Time     `json:"detected"`
	Log      logs.Mark     `json:"log,omitzero"` // where that life began in the log's files
}

// mended is a repair whose life has failed since: it is told again like the last one,
// should exec and the node process have died over both before anybody heard of them.
type mended struct {
	Tale p2pnode.ExecEvent `json:"tale"` // without its excerpt, which the log still has
	From logs.Mark         `json:"from"` // where the life that it replaced began in the log's files
	To   logs.Mark         `json:"to"`   // and where its own did
}

// tellsAgain reports whether the failure that this life mended is told again by the
// exec that finds the record.
func (r record) tellsAgain() bool {
	return r.Replaced != nil && time.Since(r.Replaced.Detected) <= retellFor
}

// tale is the repair that this life is, without an excerpt. r.Replaced is not nil.
func (r record) tale() p2pnode.ExecEvent {
	was := r.Replaced
	at := r.Started
	if at.IsZero() {
		at = was.Detected // exec was killed before it wrote down when
	}
	return p2pnode.ExecEvent{
		At: at, Event: p2pnode.FactActed, Service: r.Service, Target: was.Target, New: r.Inc.String(), PID: r.PID,
		Class: was.Class, Exit: r.Last, By: was.By, DetectedAt: was.Detected, VerifiedAt: was.Detected, StartedAt: at,
	}
}

// earlier are the repairs before this life's that are still told again.
func (r record) earlier() []mended {
	return slices.DeleteFunc(slices.Clone(r.Earlier), func(m mended) bool { return time.Since(m.Tale.DetectedAt) > retellFor })
}

// after is what the record of the next life keeps of this one's story and of those
// before it.
func (r record) after() []mended {
	out := r.earlier()
	if !r.Starting && r.tellsAgain() {
		out = append(out, mended{Tale: r.tale(), From: r.Replaced.Log, To: r.Log})
	}
	return out[max(0, len(out)-retellMost):]
}

// desired is what people want, kept for the next exec.
type desired struct {
	Stopped     map[string]bool      `json:"stopped,omitempty"` // false: a manual service that was started
	Intents     map[string]intent    `json:"intents,omitempty"` // of those that were stopped
	Maintenance map[string]time.Time `json:"maintenance,omitempty"`
	Observe     map[string]bool      `json:"observe,omitempty"` // "" is the whole host
}

// intent is a person's word that a service is to be down.
type intent struct {
	At time.Time `json:"at"`
	By string    `json:"by"`
}

// state is exec's folder on disk.
type state struct {
	dir    string
	epoch  uint64
	folder string // device:inode of dir: a copied folder is another one

	write func(path string, data []byte, perm os.FileMode) error // synced; p2pnode.WriteFile

	recalled bool // the epoch is known from locks alone: records may be lost too

	hand disk.Hand // writes the records

	mu      sync.Mutex
	unsaved map[string]*record // the disk refused them, or does not answer
}

type epochFile struct {
	Epoch  string `json:"epoch"`
	Folder string `json:"folder"`
}

// openState reads the epoch of the folder, or draws one for a fresh or copied
// folder: incarnations of two epochs are never taken for each other. Where the
// file is lost or damaged the names of the services' locks in run still tell the
// epoch: with a new one, services that live would not be known again.
func openState(dir, run string) (*state, error) {
	if err := os.MkdirAll(filepath.Join(dir, "services"), 0o700); err != nil {
		return nil, err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	st := info.Sys().(*syscall.Stat_t)
	s := &state{dir: dir, write: p2pnode.WriteFile, folder: fmt.Sprintf("%x:%x", st.Dev, st.Ino), unsaved: map[string]*record{}}
	path := filepath.Join(dir, "epoch.json")
	var f epochFile
	raw, err := p2pnode.ReadRegular(path)
	known := err == nil && json.Unmarshal(raw, &f) == nil
	if known && f.Folder == s.folder {
		if s.epoch = parseEpoch(f.Epoch); s.epoch != 0 {
			return s, nil
		}
	}
	if !known || f.Folder == s.folder {
		s.epoch = epochOfLocks(run, s.folder)
		s.recalled = s.epoch != 0
	}
	if s.epoch == 0 {
		var b [8]byte
		rand.Read(b[:])
		s.epoch = binary.BigEndian.Uint64(b[:]) | 1
	}
	raw, err = json.Marshal(epochFile{Epoch: fmt.Sprintf("%x", s.epoch), Folder: s.folder})
	if err != nil {
		return nil, err
	}
	return s, s.write(path, raw, 0o600)
}

func parseEpoch(text string) uint64 {
	inc, err := p2pnode.ParseIncarnation(text + "-0")
	if err != nil {
		return 0
	}
	return inc.Epoch
}

// epochOfLocks is the epoch in the names of the locks that services of the given
// folder hold; where none is held, of the newest lock; 0 where there is none.
func epochOfLocks(run, folder string) (epoch uint64) {
	var newest time.Time
	locks, _ := filepath.Glob(filepath.Join(run, "*."+dotted(folder)+".*.lock"))
	for _, path := range locks {
		name := strings.TrimSuffix(path, ".lock")
		e := parseEpoch(name[strings.LastIndexByte(name, '.')+1:])
		info, err := os.Lstat(path)
		if e == 0 || err != nil {
			continue
		}
		if held, err := lockHeld(path); err == nil && held {
			return e
		}
		if info.ModTime().After(newest) {
			epoch, newest = e, info.ModTime()
		}
	}
	return epoch
}

func dotted(folder string) string { return strings.ReplaceAll(folder, ":", ".") }

// identity names the folder and its epoch; it is in lock names and cookies.
func (s *state) identity() string {
	return fmt.Sprintf("%s.%x", dotted(s.folder), s.epoch)
}

func (s *state) recordPath(service string) string {
	return filepath.Join(s.dir, "services", service+".json")
}

// put overwrites a record in place, unsynced. One write of whole pages either
// happens or does not when this process is killed, costs a tenth of a new file
// and a rename, and needs no room on a full disk; after a crash of the host the
// boot ID makes it void anyway. A record that could not be written, or not within
// disk.Patience, is kept for retry. Should exec be killed before it is written, the
// next one has an older record. A copy that lives it knows all the same, and its number,
// by the copy's lock, cgroup and cookie, as after a kill between fork and record; of one
// that has ended too it does not know, and gives its number again.
func (s *state) put(r record) error {
	s.mu.Lock()
	s.unsaved[r.Service] = &r
	s.mu.Unlock()
	return s.writeRecord(&r)
}

// retry writes what could not be written before and returns the outcomes.
func (s *state) retry() map[string]error {
	s.mu.Lock()
	unsaved := slices.Collect(maps.Values(s.unsaved))
	s.mu.Unlock()
	out := map[string]error{}
	for _, r := range unsaved {
		out[r.Service] = s.writeRecord(r)
	}
	return out
}

func (s *state) writeRecord(r *record) error {
	return s.beside(func() error { return s.overwrite(r) })
}

// beside has a write done that the disk may let hang.
func (s *state) beside(write func() error) error {
	err, done := disk.Got(&s.hand, write)
	if !done {
		return disk.ErrHangs
	}
	return err
}

// overwrite is done by the hand. A newer record is not overwritten by an older one.
func (s *state) overwrite(r *record) error {
	s.mu.Lock()
	newest := s.unsaved[r.Service] == r
	s.mu.Unlock()
	if !newest {
		return nil
	}
	raw, err := json.Marshal(r)
	if err != nil {
		return err
	}
	raw = append(raw, bytes.Repeat([]byte{' '}, recordPage-len(raw)%recordPage)...)
	f, err := openForWriting(s.recordPath(r.Service), os.O_CREATE)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > int64(len(raw)) {
		raw = append(raw, bytes.Repeat([]byte{' '}, int(info.Size())-len(raw))...)
	}
	if _, err = f.WriteAt(raw, 0); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unsaved[r.Service] == r {
		delete(s.unsaved, r.Service)
	}
	return nil
}

const recordPage = 4096

// openForWriting opens a regular file of ours. It waits for nobody and writes to nothing
// else: what stands there may be a FIFO.
func openForWriting(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK|flags, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errors.New("it is no regular file")}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// overwriteFile writes a small file of ours that nothing but exec reads, unsynced.
func overwriteFile(path string, data []byte) error {
	f, err := openForWriting(path, os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

// get reads a record; one of another epoch, or a damaged one, is none.
func (s *state) get(service string) (record, bool) {
	s.mu.Lock()
	unsaved := s.unsaved[service]
	s.mu.Unlock()
	if unsaved != nil {
		return *unsaved, true
	}
	raw, err := p2pnode.ReadRegular(s.recordPath(service))
	if err != nil {
		return record{}, false
	}
	var r record
	if json.Unmarshal(raw, &r) != nil || r.Service != service || r.Inc.Epoch != s.epoch {
		return record{}, false
	}
	return r, true
}

// names lists all services that have a record, declared or not.
func (s *state) names() []string {
	entries, err := os.ReadDir(filepath.Join(s.dir, "services"))
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".json"); ok {
			out = append(out, name)
		}
	}
	return out
}

func (s *state) loadDesired() (desired, error) {
	var d desired
	raw, err := p2pnode.ReadRegular(filepath.Join(s.dir, "desired.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(raw, &d)
}

func (s *state) saveDesired(d desired) error {
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	return s.write(filepath.Join(s.dir, "desired.json"), raw, 0o600)
}
