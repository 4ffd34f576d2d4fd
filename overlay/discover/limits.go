package discover

import "time"

const (
	// DefaultPort is meant where a hint names no port.
	DefaultPort = 7744

	maxHint    = 512 // bytes of one --join
	maxAnswers = 32  // addresses taken from one name

	// maxEntries is how many peers the book keeps; the ones not seen for longest
	// go first.
	maxEntries = 1024
	maxAddrs   = 16
	maxBook    = 4 << 20 // bytes of the file

	// browseFor is one round of listening: multicast answers are told once per
	// round, so a peer that came back is found again by the next.
	browseFor = 30 * time.Second
	// restFor is how long a node with links does not search after each round.
	restFor = 5 * time.Minute
	// announceTTL is how long others may keep what we announce, in seconds.
	announceTTL = 120
	maxFound    = 256 // peers told of per round
)
