package papers

import (
	"crypto/sha256"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Code is what a joiner and the managers show of a node that waits to be let in: ten
// letters and digits of a hash of its ID. Whoever wanted another key with the same code
// would have to try 2^50 of them.
func Code(joiner peer.ID) string {
	sum := sha256.Sum256([]byte("p2pnode/join-code/" + joiner))
	text := strings.ToLower(tokenText.EncodeToString(sum[:]))
	return text[:5] + "-" + text[5:10]
}
