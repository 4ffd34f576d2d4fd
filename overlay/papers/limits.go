package papers

import "time"

// Limits on what others send.
const (
	// MaxRequest and MaxAnswer bound the two messages of an admission.
	MaxRequest = 2 << 10
	MaxAnswer  = 16 << 10
	// MaxGrant bounds the body of a token record.
	MaxGrant = 14 << 10
	// maxTokenFile is more than any token with a comment around it.
	maxTokenFile = 4 << 10

	// MaxTokenTTL and MaxTokenUses bound what may be granted at once.
	MaxTokenTTL  = 30 * 24 * time.Hour
	MaxTokenUses = 800
)

// Window is how long after a cluster's birth neighbours on loopback or in a
// directly connected private subnet are let in without a token.
const Window = 30 * time.Minute
