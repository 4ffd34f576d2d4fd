package overlay

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"p2pnode"
	"p2pnode/overlay/records"
)

// maxKept bounds the file of kept records that is read.
const maxKept = 4 << 20

// keptRecord is one line of the file: a record as its signer signed it. It is
// verified on reading like one that a neighbour sends.
type keptRecord struct {
	Domain   p2pnode.Domain `json:"domain"`
	Envelope []byte         `json:"envelope"`
}

func (o *Overlay) keptPath() string { return filepath.Join(o.cfg.Dir, "kept.json") }

// admitProof lets in what a manager signed, by the certificates in the record
// itself: he may be gone for good, and his own record with him.
func (o *Overlay) admitProof(proof func([]byte) ([][]byte, time.Time)) func(p2pnode.Record) error {
	return func(r p2pnode.Record) error {
		if o.papers == nil {
			return errNotMember
		}
		chain, at := proof(r.Body)
		cert, err := p2pnode.VerifyChain(o.papers.Root, chain, o.revoked)
		switch {
		case err != nil:
			return err
		case cert.ID != r.Signer:
			return p2pnode.ErrCertificate
		case cert.Role != p2pnode.RoleManager || at.After(cert.Until):
			return records.ErrManager
		}
		return nil
	}
}

// restoreKept takes in what the life before had kept.
func (o *Overlay) restoreKept() {
	info, err := os.Stat(o.keptPath())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil && info.Size() > maxKept {
		err = errors.New("too large")
	}
	var list []keptRecord
	if err == nil {
		var raw []byte
		if raw, err = os.ReadFile(o.keptPath()); err == nil {
			err = json.Unmarshal(raw, &list)
		}
	}
	if err != nil {
		o.cfg.Log.Error().Err(err).Msg("kept records unreadable: neighbours will send them")
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	var results []records.Result
	for _, k := range list {
		if slices.Contains(o.kept, k.Domain) {
			results = append(results, o.records.Take(time.Now(), records.Item{Domain: k.Domain, Envelope: k.Envelope}, ""))
		}
	}
	o.takenLocked(results)
	o.keptDirty = false
}

// saveKept writes the kept records if there are new ones.
func (o *Overlay) saveKept() {
	o.mu.Lock()
	dirty := o.keptDirty
	o.keptDirty = false
	var list []keptRecord
	for _, d := range o.kept {
		for _, it := range o.records.Items(time.Now(), d) {
			list = append(list, keptRecord{d, it.Envelope})
		}
	}
	o.mu.Unlock()
	if !dirty {
		return
	}
	raw, err := json.Marshal(list)
	if err == nil {
		err = p2pnode.WriteFile(o.keptPath(), append(raw, '\n'), 0o600)
	}
	if err != nil {
		o.cfg.Log.Warn().Err(err).Msg("records not kept on disk: tried again with the next one")
	}
}
