package exec

import (
	"encoding/json"
	"path/filepath"

	"p2pnode"
)

// lifeNote is what is remembered of the node process's life: an exec that finds it
// dead must name the life that ended, or nobody could report it.
type lifeNote struct {
	Inc  p2pnode.Incarnation `json:"incarnation"`
	Life p2pnode.Life        `json:"life"`
}

func lifePath(dir string) string { return filepath.Join(runDir(dir), "node.life") }

// rememberLife writes down the life that the node process says, when it is new.
func (r *runner) rememberLife(life p2pnode.Life) {
	s := r.policy.svcs[p2pnode.SelfNode]
	if s == nil || life.IsZero() || r.lifeNote == (lifeNote{s.inc, life}) {
		return
	}
	note := lifeNote{s.inc, life}
	raw, err := json.Marshal(note)
	if err == nil {
		err = r.state.beside(func() error { return overwriteFile(lifePath(r.cfg.Dir), raw) })
	}
	if err == nil {
		r.lifeNote = note // else its next word is another try
	}
	r.disk("life", err)
}

// rememberedLife is the life that the recorded node process last said; zero if it
// had not said one.
func (r *runner) rememberedLife() p2pnode.Life {
	raw, err := p2pnode.ReadRegular(lifePath(r.cfg.Dir))
	if err != nil {
		return p2pnode.Life{}
	}
	var n lifeNote
	rec, ok := r.state.get(p2pnode.SelfNode)
	if json.Unmarshal(raw, &n) != nil || !ok || n.Inc != rec.Inc {
		return p2pnode.Life{}
	}
	r.lifeNote = n
	return n.Life
}
