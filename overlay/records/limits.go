package records

import "time"

// Limits, each checked before the work that it bounds.
const (
	// MaxBody and MaxKey bound one record. The envelope around it adds 97 bytes.
	MaxBody = 16 << 10
	MaxKey  = 128
	// maxEnvelope is MaxBody, MaxKey, the envelope's and protobuf's overhead.
	maxEnvelope = MaxBody + MaxKey + 256
	maxDomain   = 32

	// MaxMessage bounds every message that this package makes or reads: batches,
	// listings, exchanges. It leaves room for framing inside 64 KiB.
	MaxMessage = 60 << 10
	// MaxItem is what one record takes of a message at most.
	MaxItem = maxEnvelope + maxDomain + 64
	// maxItems and maxEntries bound counts, since empty entries are small.
	maxItems   = 1024
	maxEntries = 2048

	// DefaultMaxKeys is how many keys one signer may hold in a domain. One more
	// pushes out the one with the lowest number.
	DefaultMaxKeys = 64
	// DefaultMaxTotal is how many records a domain holds.
	DefaultMaxTotal = 20_000

	// maxRate is how many new records of one signer are taken in per second: the
	// rest is refused, and comes by anti-entropy if it still counts by then.
	maxRate = 512
	// maxSeen is how many hashes of judged bytes are remembered.
	maxSeen = 8192
	// maxQueue is how many records wait for one link; the oldest is dropped, and
	// anti-entropy brings it.
	maxQueue = 4096
	// buckets is how many sums a digest has: 1 KiB.
	buckets = 128

	// How long an expired record is remembered. Domains that anti-entropy covers
	// need long: a node may have been away with a copy.
	graveLong, graveShort = 24 * time.Hour, time.Minute

	// maxTTL keeps times inside what a Duration holds.
	maxTTL = 100 * 365 * 24 * time.Hour
)
