package store

import "time"

// Limits of this package.
const (
	maxReport  = 64 << 10 // bytes of one signed report
	minReport  = 150      // bytes of the smallest one: bounds how many a batch may claim to hold
	maxName    = 128      // bytes of a name or an ID in a report
	maxPhrase  = 1 << 10  // bytes of a phrase in a report
	maxTrail   = 64       // nodes in a report's trail
	maxExcerpt = 8 << 10  // bytes of an excerpt as JSON: 4 KiB of text, quoted
	maxEpoch   = 32       // bytes of an epoch
	maxSeq     = 1 << 53  // highest number: exact in everybody's JSON
	maxChain   = 16 << 10 // bytes of an origin's certificates

	maxQuestion  = 48 << 10 // bytes of one question; the overlay carries 64 KiB
	haveOverhead = 16       // bytes of a line in it, besides names and spans
	maxBatch     = 3 << 20  // bytes of reports in one answer; the overlay carries 4 MiB
	firstBatch   = 256 << 10
	maxLines     = 4096 // lines in one question
	maxSpans     = 1024 // ranges in one line: who numbers with holes is not kept
	maxEpochs    = 512  // lines of one origin
	maxRounds    = 4096 // questions in one Sync: a peer that always has more is left
	maxRefused   = 256  // lines of strangers that are not asked for again

	// What one peer may be sent, in a burst and for ever after; what it asks beyond
	// that is refused, and asked again later or of somebody else.
	peerBurst  = 16 << 20
	peerRate   = 8 << 20 // bytes a second
	peerLedger = 1024    // peers that are counted
	servers    = 2       // answers that are made at one time

	maxCached  = 512     // decoded reports in memory
	maxQueued  = 1024    // puts that wait for the disk
	maxUnsaved = 4096    // reports that wait in memory for a disk that does not work
	maxWaiting = 8 << 20 // and their bytes

	groupWait   = 2 * time.Millisecond
	slowAfter   = 2 * time.Second // a commit that takes longer is not waited for
	openTimeout = 2 * time.Second // for the lock of a previous life
	openAgain   = 5 * time.Second
	writeAgain  = time.Second
	finishTime  = 3 * time.Second // for the last commit of a life

	relaxEvery   = time.Minute
	sweepEvery   = 10 * time.Minute
	sweepAtOnce  = 2000 // reports that one commit gives up
	defaultKeep  = 7 * 24 * time.Hour
	defaultBytes = 200 << 20
	pinnedActs   = 20   // newest repairs of a node that stay
	pinnedThings = 4096 // services and nodes whose last report stays
	listed       = 1000 // newest incidents that a list shows
)
