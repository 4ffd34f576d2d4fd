package notify

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"p2pnode"
)

// memory is what was told, as it is kept in the data folder: a node process that
// starts again must not page for what the life before has told.
type memory struct {
	Version int         `json:"version"`
	Began   time.Time   `json:"began"` // nothing was told before: what had failed by then is not this node's news
	Told    []toldStory `json:"told"`
}

// toldStory is one thing's story as far as it was told.
type toldStory struct {
	Node        string               `json:"node"` // ID
	Service     string               `json:"service,omitempty"`
	Kind        p2pnode.IncidentKind `json:"kind"`
	Incident    string               `json:"incident"`
	New         string               `json:"new_incarnation,omitempty"`
	DetectedAt  time.Time            `json:"detected_at,omitzero"`
	RecoveredAt time.Time            `json:"recovered_at,omitzero"`
	Heard       time.Time            `json:"heard"`
	Told        Event                `json:"told,omitempty"`
	At          map[Event]time.Time  `json:"at,omitempty"`
}

const memoryVersion = 1

func memoryPath(dir string) string { return filepath.Join(dir, "notified.json") }

// recall reads what was told. Where nothing is kept, or what is cannot be read,
// everything before now is history.
func recall(dir string, now time.Time) (memory, error) {
	fresh := memory{Version: memoryVersion, Began: now}
	raw, err := os.ReadFile(memoryPath(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return fresh, nil
	}
	var m memory
	if err == nil {
		err = json.Unmarshal(raw, &m)
	}
	if err == nil && (m.Version != memoryVersion || len(m.Told) > maxThings || m.Began.After(now)) {
		err = errors.New("it is of another version, too long, or of the future")
	}
	if err != nil {
		return fresh, err
	}
	return m, nil
}

func (m memory) save(dir string) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return p2pnode.WriteFile(memoryPath(dir), raw, 0o600)
}

// remember begins a core with what was told before.
func (c *core) remember(m memory) {
	c.began = m.Began
	for _, t := range m.Told {
		at := t.At
		if at == nil {
			at = map[Event]time.Time{}
		}
		c.things[thing{t.Node, t.Service, t.Kind}] = &story{
			incident: p2pnode.Incident{ID: t.Incident, NewIncarnation: t.New, DetectedAt: t.DetectedAt, RecoveredAt: t.RecoveredAt},
			heard:    t.Heard, opened: true, recalled: true, told: t.Told, at: at,
		}
	}
}

// memory is what the core has told.
func (c *core) memory() memory {
	m := memory{Version: memoryVersion, Began: c.began}
	for of, s := range c.things {
		if s.opened {
			i := s.incident
			m.Told = append(m.Told, toldStory{of.node, of.service, of.kind, i.ID, i.NewIncarnation, i.DetectedAt, i.RecoveredAt, s.heard, s.told, s.at})
		}
	}
	return m
}
