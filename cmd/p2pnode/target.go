package main

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"path/filepath"
	"strings"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/manage"
)

// localTarget turns TARGET (SVC, NODE/SVC, NODE/ or labels) into what this host's
// exec understands. Exec acts on its own host only; another host is refused here
// with the way out.
func (a *app) localTarget(ctx context.Context, client *exec.Client, target string) (string, error) {
	node, service, named := strings.Cut(target, "/")
	switch {
	case target == "":
		// An unset variable of a script must not mean everything.
		return "", usage("TARGET is empty, should be SVC, NODE/SVC, NODE/ for all of a host, or labels K=V")
	case !named:
		return target, nil
	}
	st, err := client.Status(ctx)
	if err != nil {
		return "", err
	}
	dir, err := clientDir(a.data)
	if err != nil {
		return "", err
	}
	self := st.Node.Node
	if self == "" || isSelf(node, self, ownID(dir)) {
		return service, nil
	}
	return "", a.elsewhere(ctx, dir, node, target, self)
}

// otherHost is the code of what elsewhere says.
const otherHost = "other-host"

// isSelf reports whether node (a name, name~tail or an ID) means the host that is
// called name and has id.
func isSelf(node, name, id string) bool {
	plain, tail, hasTail := strings.Cut(node, "~")
	if hasTail {
		return plain == name && tail != "" && id != "" && strings.HasSuffix(id, tail)
	}
	return node == name || id != "" && node == id
}

// ownID is this host's node ID, as its key says; "" where there is no key yet.
func ownID(dir string) string {
	key, err := p2pnode.LoadKey(filepath.Join(dir, "node.key"))
	if err != nil {
		return ""
	}
	return p2pnode.PeerID(key.Public().(ed25519.PublicKey)).String()
}

// elsewhere says why node's service is not acted on from here: nobody is called
// that, or it is another host's.
func (a *app) elsewhere(ctx context.Context, dir, node, target, self string) error {
	where := node
	if c, err := manage.Dial(ctx, dir); err == nil {
		defer c.Close()
		doc, err := c.Node(ctx, node)
		if err != nil {
			return err
		}
		for _, n := range doc.Nodes {
			where = n.Name
		}
	}
	return &p2pnode.Error{
		Code: otherHost, Exit: p2pnode.ExitFailed,
		Text: fmt.Sprintf("%q is on another host: this is %s, and services are acted on where they run", target, self),
		Fix:  fmt.Sprintf("run the command on %s", where),
	}
}
