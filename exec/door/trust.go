package door

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// Trust is the snapshot of the cluster that the node process leaves for the door:
// all that the door knows while the node process is dead.
type Trust struct {
	Root    []byte              `json:"root"` // DER
	Revoked p2pnode.Revocations `json:"revoked,omitempty"`
	Peers   []TrustPeer         `json:"peers,omitempty"` // neighbours first
}

// TrustPeer is a member's door.
type TrustPeer struct {
	ID   peer.ID `json:"id"`
	Name string  `json:"name"`
	Door string  `json:"door"` // host:port
}

func trustPath(dir string) string { return filepath.Join(dir, "trust.json") }
func chainPath(dir string) string { return filepath.Join(dir, "door.crt") }

// SaveTrust replaces the snapshot in the data folder dir.
func SaveTrust(dir string, t Trust) error {
	raw, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return p2pnode.WriteFile(trustPath(dir), raw, 0o600)
}

// LoadTrust reads the snapshot of dir; fs.ErrNotExist before the first one.
func LoadTrust(dir string) (Trust, error) {
	var t Trust
	return t, readJSON(trustPath(dir), &t)
}

// SaveChain leaves the door's certificate chain (DER, the door's own first) in dir.
func SaveChain(dir string, chain [][]byte) error {
	raw, err := json.Marshal(chain)
	if err != nil {
		return err
	}
	return p2pnode.WriteFile(chainPath(dir), raw, 0o600)
}

func readJSON(path string, v any) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() > maxTrust {
		return fmt.Errorf("%s has %d bytes, more than it can honestly have", path, info.Size())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(raw, v)
}

// papers is the door's own identity and whom it trusts, as the node process left
// them; read again when a file changes.
type papers struct {
	dir string

	mu    sync.Mutex
	stamp [2]fileStamp
	chain [][]byte
	trust Trust
}

type fileStamp struct {
	mod  time.Time
	size int64
	id   uint64 // inode: two files of the same size may come within one tick of the clock
}

var errNoPapers = errors.New("the node process has not joined a cluster yet")

// current returns the newest readable papers. A file that is being damaged under
// us leaves the last good ones in force.
func (p *papers) current() ([][]byte, Trust, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := [2]fileStamp{stampOf(chainPath(p.dir)), stampOf(trustPath(p.dir))}
	if now != p.stamp {
		var chain [][]byte
		trust, err := LoadTrust(p.dir)
		if err = errors.Join(err, readJSON(chainPath(p.dir), &chain)); err == nil {
			p.stamp, p.chain, p.trust = now, chain, trust
		} else if p.chain == nil {
			if errors.Is(err, fs.ErrNotExist) {
				return nil, Trust{}, errNoPapers
			}
			return nil, Trust{}, err
		}
	}
	if p.chain == nil {
		return nil, Trust{}, errNoPapers
	}
	return p.chain, p.trust, nil
}

func stampOf(path string) fileStamp {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}
	}
	return fileStamp{info.ModTime(), info.Size(), info.Sys().(*syscall.Stat_t).Ino}
}
