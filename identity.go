package p2pnode

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Incarnation names one life of a service: Epoch is drawn at random once per
// state folder, N counts its starts from 1. The zero value means "none".
// Incarnations of one epoch are ordered by N; across epochs only equality means
// anything.
type Incarnation struct {
	Epoch uint64
	N     uint64
}

// IsZero reports whether i names no incarnation.
func (i Incarnation) IsZero() bool { return i == Incarnation{} }

// Next is the incarnation after i.
func (i Incarnation) Next() Incarnation { return Incarnation{Epoch: i.Epoch, N: i.N + 1} }

// String is the opaque text form "epoch-n" (hex, decimal); "" for none.
func (i Incarnation) String() string {
	if i.IsZero() {
		return ""
	}
	return strconv.FormatUint(i.Epoch, 16) + "-" + strconv.FormatUint(i.N, 10)
}

// MarshalText implements encoding.TextMarshaler.
func (i Incarnation) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (i *Incarnation) UnmarshalText(b []byte) (err error) {
	*i, err = ParseIncarnation(string(b))
	return err
}

// ParseIncarnation reads what String wrote; "" is the zero value.
func ParseIncarnation(s string) (Incarnation, error) {
	a, b, err := parsePair(s, 10)
	if err != nil {
		return Incarnation{}, fmt.Errorf("incarnation %q: %w", s, err)
	}
	return Incarnation{Epoch: a, N: b}, nil
}

// Life names one life of a node process: Boot rises by at least one with each
// start (max of what the disk and the cluster remember, plus one), Nonce is
// random, so that two processes with one key never share a life.
type Life struct {
	Boot  uint64
	Nonce uint64
}

// NewLife draws the life that follows boot number prev.
func NewLife(prev uint64) Life {
	var b [8]byte
	rand.Read(b[:])
	return Life{Boot: prev + 1, Nonce: binary.BigEndian.Uint64(b[:])}
}

// IsZero reports whether l names no life.
func (l Life) IsZero() bool { return l == Life{} }

// String is the opaque text form "boot-nonce" (decimal, hex); "" for none.
func (l Life) String() string {
	if l.IsZero() {
		return ""
	}
	return strconv.FormatUint(l.Boot, 16) + "-" + strconv.FormatUint(l.Nonce, 16)
}

// MarshalText implements encoding.TextMarshaler.
func (l Life) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (l *Life) UnmarshalText(b []byte) (err error) {
	*l, err = ParseLife(string(b))
	return err
}

// ParseLife reads what Life.String wrote; "" is the zero value.
func ParseLife(s string) (Life, error) {
	a, b, err := parsePair(s, 16)
	if err != nil {
		return Life{}, fmt.Errorf("life %q: %w", s, err)
	}
	return Life{Boot: a, Nonce: b}, nil
}

func parsePair(s string, secondBase int) (a, b uint64, err error) {
	if s == "" {
		return 0, 0, nil
	}
	left, right, ok := strings.Cut(s, "-")
	if !ok {
		return 0, 0, errors.New("want two numbers with a dash between them")
	}
	if a, err = strconv.ParseUint(left, 16, 64); err != nil {
		return 0, 0, err
	}
	b, err = strconv.ParseUint(right, secondBase, 64)
	return a, b, err
}

// ed25519Prefix is the identity multihash and protobuf header of a libp2p
// Ed25519 public key: 0x00 identity, 0x24 length, then {type 1, 32 bytes}.
// Source: libp2p peer-ids specification.
const ed25519Prefix = "\x00\x24\x08\x01\x12\x20"

// PeerID is the libp2p peer ID of an Ed25519 public key.
func PeerID(pub ed25519.PublicKey) peer.ID { return peer.ID(ed25519Prefix + string(pub)) }

// PublicKey extracts the Ed25519 public key that an ID embeds; ok is false for
// IDs of other key types.
func PublicKey(id peer.ID) (pub ed25519.PublicKey, ok bool) {
	s := string(id)
	if len(s) != len(ed25519Prefix)+ed25519.PublicKeySize || !strings.HasPrefix(s, ed25519Prefix) {
		return nil, false
	}
	return ed25519.PublicKey(s[len(ed25519Prefix):]), true
}

// ShortID is the last six characters of an ID's text form: the head of every
// Ed25519 ID is the same, the tail tells them apart.
func ShortID(id peer.ID) string {
	s := id.String()
	return s[max(0, len(s)-6):]
}

// ValidNodeName reports whether a node may be called so: letters, digits, dot, - and
// _, at most 63. Names are free of what the CLI gives a meaning (/ ~ = , @) and of
// what a terminal does.
func ValidNodeName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' {
		return false
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

// LoadOrCreateKey reads the Ed25519 private key (PEM, 32-byte seed) at path, or
// makes one there with mode 0600. Two processes that race for a new file end up
// with the same key. A key that others can read is refused.
func LoadOrCreateKey(path string) (ed25519.PrivateKey, error) {
	key, err := LoadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	_, fresh, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block := pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: fresh.Seed()})
	tmp := path + "." + hex.EncodeToString(fresh.Public().(ed25519.PublicKey)[:4])
	if err := writeSynced(tmp, block, 0o600); err != nil {
		return nil, fmt.Errorf("cannot create key: %w", err)
	}
	defer os.Remove(tmp)
	// link, unlike rename, fails if another process was first.
	if err := os.Link(tmp, path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("cannot create key: %w", err)
	}
	return LoadKey(path)
}

const keyBlock = "P2PNODE ED25519 SEED"

// LoadKey reads the key at path as LoadOrCreateKey does; fs.ErrNotExist where
// there is none.
func LoadKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("key %s can be read by others (mode %04o): run chmod 600 on it", path, info.Mode().Perm())
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != keyBlock || len(block.Bytes) != ed25519.SeedSize {
		return nil, fmt.Errorf("key %s is damaged: restore it from a backup, or move it away to join as a new node", path)
	}
	return ed25519.NewKeyFromSeed(block.Bytes), nil
}

// WriteFile replaces path as a whole: temporary file, fsync, rename, fsync of
// the folder. A crash at any moment leaves the old bytes or the new ones.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	tmp := fmt.Sprintf("%s.%d.tmp", path, os.Getpid())
	if err := writeSynced(tmp, data, mode); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// unfinished is the name of a WriteFile's temporary file, and whose it is.
var unfinished = regexp.MustCompile(`\.([0-9]+)\.tmp$`)

// maxPID is the highest number that Linux gives a process (PID_MAX_LIMIT).
const maxPID = 1 << 22

// RemoveUnfinished removes the temporary files that WriteFile left in dir when its
// process was killed, a minute ago or earlier; those of processes that live stay.
func RemoveUnfinished(dir string) {
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		of := unfinished.FindStringSubmatch(f.Name())
		if of == nil || !f.Type().IsRegular() {
			continue
		}
		pid, err := strconv.Atoi(of[1])
		info, bad := f.Info()
		if err != nil || pid > maxPID || bad != nil || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		if _, err := os.Stat("/proc/" + of[1]); errors.Is(err, fs.ErrNotExist) {
			os.Remove(filepath.Join(dir, f.Name()))
		}
	}
}

func writeSynced(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}
