package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

// Every message stands in a frame:
//
//	+----------------+---------+------------------+
//	| 4 bytes        | 1 byte  | the rest         |
//	| length of rest | version | protobuf message |
//	+----------------+---------+------------------+
//
// The length counts the version byte. It is checked against the limit of the
// message's kind before a byte of it is read.
const wireVersion = 1

var errFrame = errors.New("damaged frame")

func readFrame(r io.Reader, m proto.Message, limit int) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := int(binary.BigEndian.Uint32(head[:]))
	if n < 1 || n > limit {
		return fmt.Errorf("%w: %d bytes, at most %d are allowed", errFrame, n, limit)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	return decodeFrame(body, m)
}

func decodeFrame(body []byte, m proto.Message) error {
	if len(body) == 0 || body[0] != wireVersion {
		return fmt.Errorf("%w: unknown version", errFrame)
	}
	if err := proto.Unmarshal(body[1:], m); err != nil {
		return fmt.Errorf("%w: %v", errFrame, err)
	}
	return nil
}

// encodeFrame is a whole frame, ready to be written at once.
func encodeFrame(m proto.Message, limit int) ([]byte, error) {
	out := make([]byte, 5, 5+proto.Size(m))
	out, err := proto.MarshalOptions{}.MarshalAppend(out, m)
	if err != nil {
		return nil, err
	}
	if len(out)-4 > limit {
		return nil, fmt.Errorf("%w: %d bytes to send, at most %d are allowed", errFrame, len(out)-4, limit)
	}
	binary.BigEndian.PutUint32(out, uint32(len(out)-4))
	out[4] = wireVersion
	return out, nil
}

func writeFrame(w io.Writer, m proto.Message, limit int) error {
	raw, err := encodeFrame(m, limit)
	if err != nil {
		return err
	}
	_, err = w.Write(raw)
	return err
}

// encode packs a message of ours, which cannot fail.
func encode(m proto.Message) []byte {
	raw, err := proto.Marshal(m)
	if err != nil {
		panic("overlay: message that cannot be packed: " + err.Error())
	}
	return raw
}

// decode reads a message whose size its frame has bounded.
func decode(raw []byte, m proto.Message) error {
	if err := proto.Unmarshal(raw, m); err != nil {
		return errors.Join(errFrame, err)
	}
	return nil
}
