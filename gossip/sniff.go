package gossip

import (
	"bytes"
	"encoding/binary"

	"github.com/hashicorp/go-msgpack/v2/codec"
)

// memberlist tells nobody whom it suspects, nor that it had to refute its own death.
// It gossips both, though: we read our own outgoing packets. Message numbers and
// shapes are those of its wire protocol; a test fails loudly when a new version
// changes them.
const (
	swimSuspectMsg  = 3
	swimAliveMsg    = 4
	swimCompoundMsg = 7
	swimCRCMsg      = 12
)

// swimSaid is what memberlist's suspect and alive messages have in common.
type swimSaid struct {
	Incarnation uint32
	Node        string
	From        string // of a suspicion: who has it
	alive       bool
}

// overheard are the suspicions and signs of life in one outgoing packet.
func overheard(b []byte) []swimSaid {
	return overheardIn(b, 0)
}

func overheardIn(b []byte, depth int) []swimSaid {
	if len(b) < 2 || depth > 3 {
		return nil
	}
	switch b[0] {
	case swimCRCMsg:
		if len(b) > 5 {
			return overheardIn(b[5:], depth+1)
		}
	case swimSuspectMsg, swimAliveMsg:
		s := swimSaid{alive: b[0] == swimAliveMsg}
		if codec.NewDecoder(bytes.NewReader(b[1:]), &codec.MsgpackHandle{}).Decode(&s) == nil && s.Node != "" {
			return []swimSaid{s}
		}
	case swimCompoundMsg:
		return compound(b, depth)
	}
	return nil
}

// compound is: 1 byte type, 1 byte count, count lengths of 2 bytes, the parts.
func compound(b []byte, depth int) (out []swimSaid) {
	n := int(b[1])
	body := b[2:]
	if len(body) < 2*n {
		return nil
	}
	lengths, parts := body[:2*n], body[2*n:]
	for i := range n {
		size := int(binary.BigEndian.Uint16(lengths[2*i:]))
		if len(parts) < size {
			break
		}
		out = append(out, overheardIn(parts[:size], depth+1)...)
		parts = parts[size:]
	}
	return out
}
