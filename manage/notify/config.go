package notify

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"p2pnode"
)

// Sink is one entry of `notify:`. Exactly one of Run and Webhook is set.
type Sink struct {
	Run     []string `json:"run,omitempty"`     // argv of a program of this host
	Webhook string   `json:"webhook,omitempty"` // URL; may hold a secret, so that no command line ever shows it
	On      []Event  `json:"on,omitempty"`      // none: all
}

func (s Sink) wants(e Event) bool { return len(s.On) == 0 || slices.Contains(s.On, e) }

// key tells sinks apart: one that is declared as before keeps what waits for it.
func (s Sink) key() string {
	raw, _ := json.Marshal(s)
	return string(raw)
}

// path is where exec, which reads the configuration, leaves the sinks for the node
// process.
func path(dir string) string { return filepath.Join(dir, "run", "notify.json") }

// Save leaves sinks for the node process of the data folder dir, which takes them
// over within seconds.
func Save(dir string, sinks []Sink) error {
	if _, err := os.Stat(path(dir)); len(sinks) == 0 && err != nil {
		return nil
	}
	raw, err := json.Marshal(sinks)
	if err != nil {
		return err
	}
	return p2pnode.WriteFile(path(dir), raw, 0o600)
}

// load reads what Save wrote; a file that cannot be read means no sinks.
func load(dir string) []Sink {
	raw, err := os.ReadFile(path(dir))
	var sinks []Sink
	if err != nil || json.Unmarshal(raw, &sinks) != nil {
		return nil
	}
	return sinks
}
