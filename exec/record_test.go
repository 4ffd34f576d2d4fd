package exec

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"p2pnode"
)

// Whatever a record's file holds, it is the service's own of this epoch or none.
func FuzzRecord(f *testing.F) {
	dir := f.TempDir()
	s, err := openState(filepath.Join(dir, "exec"), filepath.Join(dir, "run"))
	if err != nil {
		f.Fatal(err)
	}
	good, err := json.Marshal(record{Service: "web", Inc: p2pnode.Incarnation{Epoch: s.epoch, N: 3}, PID: 7, Ticks: 9, Started: time.Unix(1, 0)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"service":"web","incarnation":"1-1","pid":-1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := s.recordPath("web")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if r, ok := s.get("web"); ok && (r.Service != "web" || r.Inc.Epoch != s.epoch) {
			t.Errorf("%+v", r)
		}
		s.get("api")
	})
}
