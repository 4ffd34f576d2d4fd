package door

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"p2pnode"
)

// Requests and answers are frames:
//
//	+----------------+---------+------------------+
//	| 4 bytes        | 1 byte  | the rest         |
//	| length of rest | version | one JSON message |
//	+----------------+---------+------------------+
//
// The length counts the version byte and is at most 64 KiB. Unknown fields are
// ignored, an unknown version or verb is refused.
const wireVersion = 1

// verb is what a caller asks for.
type verb string

const (
	verbStatus  verb = "status"
	verbRecover verb = "recover"
	verbNotice  verb = "notice"
)

// request is one question at the door.
type request struct {
	Verb    verb                    `json:"verb"`
	Recover *p2pnode.RecoverRequest `json:"recover,omitempty"`
	Life    p2pnode.Life            `json:"life,omitzero"` // notice: the caller's node process life that ended
}

// answer is the door's word.
type answer struct {
	Status  *Status                `json:"status,omitempty"`
	Recover *p2pnode.RecoverAnswer `json:"recover,omitempty"`
	Error   *p2pnode.Error         `json:"error,omitempty"`
}

// Status is what a door says of its own host.
type Status struct {
	ExecAlive bool                 `json:"exec_alive"`
	NodeAlive bool                 `json:"node_alive"`
	NodeState p2pnode.ServiceState `json:"node_state,omitempty"` // exec's word; absent with exec dead
	NodeLife  p2pnode.Life         `json:"node_life,omitzero"`   // that the node process last said
	At        time.Time            `json:"at"`
}

var errFrame = errors.New("damaged frame")

// readFrame reads one frame into v; its length is looked at before anything else.
func readFrame(r io.Reader, v any) error {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint32(head[:4])
	if n < 2 || n > maxFrame {
		return fmt.Errorf("%w: length %d", errFrame, n)
	}
	if head[4] != wireVersion {
		return fmt.Errorf("%w: version %d", errFrame, head[4])
	}
	body := make([]byte, n-1)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return fmt.Errorf("%w: %v", errFrame, err)
	}
	return nil
}

func writeFrame(w io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(raw)+1 > maxFrame {
		return fmt.Errorf("%w: %d bytes to send", errFrame, len(raw))
	}
	out := make([]byte, 5, 5+len(raw))
	binary.BigEndian.PutUint32(out, uint32(len(raw)+1))
	out[4] = wireVersion
	_, err = w.Write(append(out, raw...))
	return err
}
