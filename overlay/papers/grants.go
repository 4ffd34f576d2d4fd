package papers

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"p2pnode"
)

const grantsFile = "tokens.json"

// SaveGrants keeps grants over a restart: where there is one manager alone nobody
// else would remember them. They let nobody make the tokens.
func SaveGrants(dir string, grants []Grant) error {
	bodies := make([][]byte, len(grants))
	for i, g := range grants {
		bodies[i] = EncodeGrant(g)
	}
	raw, err := json.Marshal(bodies)
	if err != nil {
		return err
	}
	return p2pnode.WriteFile(filepath.Join(dir, grantsFile), append(raw, '\n'), 0o600)
}

// LoadGrants is what SaveGrants kept; none without a file. What cannot be read is
// left out and said in err.
func LoadGrants(dir string) (out []Grant, err error) {
	raw, err := os.ReadFile(filepath.Join(dir, grantsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var bodies [][]byte
	if err == nil {
		err = json.Unmarshal(raw, &bodies)
	}
	for _, b := range bodies {
		g, bad := DecodeGrant(b)
		if bad != nil {
			err = bad
			continue
		}
		out = append(out, g)
	}
	if err != nil {
		return out, fmt.Errorf("tokens unreadable: %w", err)
	}
	return out, nil
}
