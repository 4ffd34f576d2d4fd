package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/libp2p/go-libp2p/core/peer"
)

// A report rests as
//
//	+--------+---------+---------+-----------------------------------------------+---------------+
//	| 4      | 4 bytes | 4 bytes | 26 bytes: at (8), incident (8), node (4),     | signed report |
//	| "p2r1" | length  | CRC-32C | thing (4), phase (1), flags (1)               | (an envelope) |
//	+--------+---------+---------+-----------------------------------------------+---------------+
//
// all big endian; length counts, and the checksum covers, what follows it. The
// checksum finds flipped bits at every start, where a hundred thousand signatures
// would take seconds; the signature is still looked at when a report is shown or
// taken in. Magic, length and checksum also find reports in a file whose pages no
// longer lead to them (salvage.go).
const (
	magic      = "p2r1"
	headSize   = 12
	sketchSize = 26
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// pack is how raw rests; k without line and size.
func pack(k sketch, raw []byte) []byte {
	b := make([]byte, headSize, headSize+sketchSize+len(raw))
	copy(b, magic)
	b = binary.BigEndian.AppendUint64(b, uint64(k.at))
	b = binary.BigEndian.AppendUint64(b, k.incident)
	b = binary.BigEndian.AppendUint32(b, k.node)
	b = binary.BigEndian.AppendUint32(b, k.thing)
	b = append(b, k.phase, k.flags)
	b = append(b, raw...)
	binary.BigEndian.PutUint32(b[4:], uint32(len(b)-headSize))
	binary.BigEndian.PutUint32(b[8:], crc32.Checksum(b[headSize:], castagnoli))
	return b
}

// unpack checks v; raw aliases it.
func unpack(v []byte) (k sketch, raw []byte, err error) {
	if len(v) < headSize+sketchSize || string(v[:4]) != magic || binary.BigEndian.Uint32(v[4:]) != uint32(len(v)-headSize) ||
		binary.BigEndian.Uint32(v[8:]) != crc32.Checksum(v[headSize:], castagnoli) {
		return sketch{}, nil, fmt.Errorf("%w: a report of %d bytes does not match its checksum", errDamaged, len(v))
	}
	b := v[headSize:]
	k = sketch{
		at: int64(binary.BigEndian.Uint64(b)), incident: binary.BigEndian.Uint64(b[8:]), node: binary.BigEndian.Uint32(b[16:]),
		thing: binary.BigEndian.Uint32(b[20:]), phase: b[24], flags: b[25], size: uint32(len(v)),
	}
	return k, b[sketchSize:], nil
}

// checked and unchecked are for small things in the file: a checksum ahead of b.
func checked(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, castagnoli)), b...)
}

func unchecked(v []byte) ([]byte, bool) {
	if len(v) < 4 || binary.BigEndian.Uint32(v) != crc32.Checksum(v[4:], castagnoli) {
		return nil, false
	}
	return v[4:], true
}

// Keys: origin length (1 byte) | origin | epoch length (1) | epoch, and behind
// that for a report its number (8).

func lineKey(l line) []byte {
	k := append([]byte{byte(len(l.origin))}, l.origin...)
	k = append(k, byte(len(l.epoch)))
	return append(k, l.epoch...)
}

func reportKey(p place) []byte { return binary.BigEndian.AppendUint64(lineKey(p.l), p.seq) }

// parseKey is the reverse of reportKey.
func parseKey(k []byte) (p place, ok bool) {
	l, rest, ok := parseLine(k)
	if !ok || len(rest) != 8 {
		return place{}, false
	}
	return place{l, binary.BigEndian.Uint64(rest)}, true
}

func parseLine(k []byte) (l line, rest []byte, ok bool) {
	origin, k, ok := cutField(k)
	if !ok {
		return line{}, nil, false
	}
	epoch, k, ok := cutField(k)
	return line{peer.ID(origin), string(epoch)}, k, ok
}

func cutField(k []byte) (field, rest []byte, ok bool) {
	if len(k) == 0 || len(k) < 1+int(k[0]) {
		return nil, nil, false
	}
	return k[1 : 1+int(k[0])], k[1+int(k[0]):], true
}

// carve finds what pack made anywhere in a file of that size and hands over each
// piece that matches its checksum. It follows no pointers: no damage can mislead
// it, only hide a report from it.
func carve(file io.ReaderAt, size int64, found func(v []byte)) error {
	const window = 1 << 20
	buf := make([]byte, window+headSize+sketchSize+maxReport)
	for from := int64(0); from < size; from += window {
		n, err := file.ReadAt(buf[:min(int64(len(buf)), size-from)], from)
		if n == 0 && err != nil && err != io.EOF {
			return err
		}
		for i := 0; ; i++ {
			next := bytes.Index(buf[min(i, n):n], []byte(magic))
			if i += next; next < 0 || i >= window || i+headSize > n {
				break
			}
			length := int(binary.BigEndian.Uint32(buf[i+4:]))
			if length > sketchSize+maxReport || i+headSize+length > n {
				continue
			}
			if v := buf[i : i+headSize+length]; binary.BigEndian.Uint32(v[8:]) == crc32.Checksum(v[headSize:], castagnoli) {
				found(v)
				i += headSize + length - 1
			}
		}
	}
	return nil
}
