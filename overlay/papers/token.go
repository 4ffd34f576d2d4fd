package papers

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// A token is text that a manager gives to somebody who shall join:
//
//	p2pnode1-<base32 of: 16 bytes pin | 16 bytes secret | 4 bytes check>
//
// The pin is the head of the SHA-256 of the cluster's root, the check that of pin
// and secret: a token with a letter lost is told from one that is unknown.
type Token struct {
	Pin    [16]byte
	secret [16]byte
}

const (
	tokenPrefix = "p2pnode1-"
	tokenCheck  = 4
)

var tokenText = base32.StdEncoding.WithPadding(base32.NoPadding)

// String is the token as it is handed out. It is a secret.
func (t Token) String() string {
	raw := append(t.Pin[:], t.secret[:]...)
	sum := sha256.Sum256(raw)
	return tokenPrefix + strings.ToLower(tokenText.EncodeToString(append(raw, sum[:tokenCheck]...)))
}

// ParseToken reads what String wrote; white space around it is ignored.
func ParseToken(s string) (Token, error) {
	body, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	raw, err := tokenText.DecodeString(strings.ToUpper(body))
	var t Token
	n := copy(t.Pin[:], raw)
	copy(t.secret[:], raw[n:])
	// Written again it must be the same text: one token has one spelling.
	if !ok || err != nil || t.String() != tokenPrefix+strings.ToLower(body) {
		return Token{}, &p2pnode.Error{
			Code: "token-unreadable", Exit: p2pnode.ExitUsage,
			Text: "this is no p2pnode token, or a part of it is missing",
			Fix:  "copy the whole line that `p2pnode token create` printed; it starts with " + tokenPrefix,
		}
	}
	return t, nil
}

// ReadTokenFile reads the token in a file: its first line that is not empty and
// does not start with #.
func ReadTokenFile(path string) (Token, error) {
	f, err := os.Open(path)
	if err != nil {
		return Token{}, &p2pnode.Error{
			Code: "token-file", Exit: p2pnode.ExitUsage,
			Text: fmt.Sprintf("cannot read the token file: %v", err),
			Fix:  "make it with `p2pnode token create > FILE` on a manager",
		}
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	if err != nil {
		return Token{}, err
	}
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			return ParseToken(line)
		}
	}
	return ParseToken("")
}

// Matches reports whether root (DER) is the one that the token pins.
func (t Token) Matches(root []byte) bool { return t.Pin == pinOf(root) }

// Cluster is the head of the pinned cluster's public name.
func (t Token) Cluster() string { return hex.EncodeToString(t.Pin[:8]) }

func pinOf(root []byte) [16]byte {
	sum := sha256.Sum256(root)
	return [16]byte(sum[:16])
}

// key is what the secret makes: the grant holds its public half.
func (t Token) key() ed25519.PrivateKey {
	seed, err := hkdf.Key(sha256.New, t.secret[:], t.Pin[:], "p2pnode token key", ed25519.SeedSize)
	if err != nil {
		panic("papers: HKDF of 32 bytes failed: " + err.Error())
	}
	return ed25519.NewKeyFromSeed(seed)
}

// proofDomain separates a token's signature from all others.
func proofBytes(pin [16]byte, joiner peer.ID) []byte {
	return bytes.Join([][]byte{[]byte("p2pnode/token-proof"), pin[:], []byte(joiner)}, []byte{0})
}

// Grant is what a token allows, as managers keep it in signed records. It lets
// nobody make the token.
type Grant struct {
	Public  ed25519.PublicKey
	Role    p2pnode.Role
	Expires time.Time
	Uses    int    // how many nodes may join with it
	Used    []Mark // who joined with it, as far as the manager that signed this knows
}

// Mark stands for a node that used a token: a retry of the same node is no second
// use.
type Mark [8]byte

// MarkOf is the mark of a joiner.
func MarkOf(joiner peer.ID) Mark {
	sum := sha256.Sum256([]byte(joiner))
	return Mark(sum[:8])
}

// ID is the grant's public name: what `token ls` prints and the record's key.
func (g Grant) ID() string { return grantID(g.Public) }

func grantID(public []byte) string {
	sum := sha256.Sum256(public)
	return hex.EncodeToString(sum[:8])
}

// NewToken makes a token of the cluster with this root and the grant to publish.
// ttl and uses out of range are an error for the person who asked.
func NewToken(root []byte, role p2pnode.Role, ttl time.Duration, uses int, now time.Time) (Token, Grant, error) {
	if role != p2pnode.RoleWorker && role != p2pnode.RoleManager {
		return Token{}, Grant{}, usage("a token's role is worker or manager, not %q", role)
	}
	if ttl <= 0 || ttl > MaxTokenTTL {
		return Token{}, Grant{}, usage("a token lives up to %s, not %s", MaxTokenTTL, ttl)
	}
	if uses < 1 || uses > MaxTokenUses {
		return Token{}, Grant{}, usage("a token has 1 to %d uses, not %d", MaxTokenUses, uses)
	}
	t := Token{Pin: pinOf(root)}
	rand.Read(t.secret[:])
	public := t.key().Public().(ed25519.PublicKey)
	// Whole seconds: what the record says is what the person is told.
	return t, Grant{Public: public, Role: role, Expires: now.Add(ttl).Truncate(time.Second), Uses: uses}, nil
}

func usage(format string, args ...any) error {
	return &p2pnode.Error{Code: "bad-token-options", Exit: p2pnode.ExitUsage, Text: fmt.Sprintf(format, args...)}
}
