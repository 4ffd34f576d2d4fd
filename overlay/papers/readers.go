package papers

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"p2pnode"
)

// Reader keys: the private halves of what excerpts are and were sealed to, 32 bytes
// each, in one file that only managers have.

// ReaderKeySize is the length of a reader key, private or public.
const ReaderKeySize = 32

// maxReaders bounds the file, and what another manager may hand over.
const maxReaders = 256

// NewReader makes a reader key.
func NewReader() (private, public []byte, err error) {
	key, err := kem().GenerateKey()
	if err != nil {
		return nil, nil, err
	}
	private, err = key.Bytes()
	return private, key.PublicKey().Bytes(), err
}

// ReaderPublic is the public half of a reader key.
func ReaderPublic(private []byte) ([]byte, error) {
	key, err := kem().NewPrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("reader key: %w", err)
	}
	return key.PublicKey().Bytes(), nil
}

// ReaderFor is the key of keys whose public half it is; nil: none.
func ReaderFor(keys [][]byte, public []byte) []byte {
	for _, k := range slices.Backward(keys) { // it is most often the newest
		if p, err := ReaderPublic(k); err == nil && bytes.Equal(p, public) {
			return k
		}
	}
	return nil
}

// JoinReaders is keys and those of more that are not among them; of too many the
// newest.
func JoinReaders(keys, more [][]byte) [][]byte {
	out := slices.Clone(keys)
	for _, k := range more {
		if !slices.ContainsFunc(out, func(have []byte) bool { return bytes.Equal(have, k) }) {
			out = append(out, k)
		}
	}
	return out[max(0, len(out)-maxReaders):]
}

// SaveReaders keeps the keys, as a whole; none removes the file.
func SaveReaders(dir string, keys [][]byte) error {
	path := filepath.Join(dir, readerFile)
	if len(keys) == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	if err := p2pnode.WriteFile(path, bytes.Join(keys, nil), 0o600); err != nil {
		return fmt.Errorf("cannot keep the reader keys: %w", err)
	}
	return nil
}

// LoadReaders are the keys that SaveReaders kept; none where there is no file, or
// nothing that could be read.
func LoadReaders(dir string) [][]byte {
	raw, err := os.ReadFile(filepath.Join(dir, readerFile))
	if err != nil {
		return nil
	}
	keys, err := splitReaders(raw)
	if err != nil {
		return nil
	}
	return keys
}

func splitReaders(raw []byte) ([][]byte, error) {
	if len(raw)%ReaderKeySize != 0 || len(raw) > maxReaders*ReaderKeySize {
		return nil, fmt.Errorf("%w: reader keys of %d bytes", ErrMessage, len(raw))
	}
	return slices.Collect(slices.Chunk(raw, ReaderKeySize)), nil
}

// SealReaders encrypts keys to the box key of a manager.
func SealReaders(box []byte, keys [][]byte) ([]byte, error) {
	return SealTo(box, sealReaders, bytes.Join(keys, nil))
}

// OpenReaders decrypts what SealReaders sealed to key's box key.
func OpenReaders(key ed25519.PrivateKey, sealed []byte) ([][]byte, error) {
	if len(sealed) > maxReaders*ReaderKeySize+1<<10 {
		return nil, fmt.Errorf("%w: %d bytes of reader keys", ErrMessage, len(sealed))
	}
	raw, err := OpenBox(key, sealReaders, sealed)
	if err != nil {
		return nil, err
	}
	return splitReaders(raw)
}

// takeReaders opens what an answer brings a manager, and keeps it beside what is
// there.
func takeReaders(dir string, key ed25519.PrivateKey, public, sealed, older []byte) error {
	var keys [][]byte
	if len(sealed) > 0 {
		now, err := OpenBox(key, sealReader, sealed)
		if err != nil {
			return err
		}
		if ReaderFor([][]byte{now}, public) == nil {
			return errors.New("reader key of another cluster")
		}
		keys = append(keys, now)
	}
	if len(older) > 0 {
		more, err := OpenReaders(key, older)
		if err != nil {
			return err
		}
		keys = JoinReaders(keys, more)
	}
	if len(keys) == 0 {
		return nil
	}
	return SaveReaders(dir, JoinReaders(keys, LoadReaders(dir)))
}
