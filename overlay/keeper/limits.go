package keeper

import "time"

// Times and counts. The figures are for links of 1 s heartbeats.
const (
	// DefaultDialled is how many links a node dials for itself; as many come in on
	// average, so that it has about eight.
	DefaultDialled = 4
	// DefaultMost is above how many links it lets go of accepted ones.
	DefaultMost = 16

	maxInFlight = 8    // dials under way at once
	maxKnown    = 4096 // candidates; more are ignored

	backoffFirst = 500 * time.Millisecond
	backoffMost  = 10 * time.Minute
	backoffAlone = 15 * time.Second // while there is no link, and for join addresses

	dialTimeout  = 30 * time.Second // a dial that nobody reported by then has failed
	provenAfter  = 10 * time.Second // a link that lived so long clears the backoff
	retryLost    = 200 * time.Millisecond
	duplicateFor = time.Second // what both ends get to notice a duplicate

	probeEvery = 3 * time.Second // plus up to 2 s: one member without a route
	tuneEvery  = time.Minute     // plus up to as much: one dial in search of a nearer peer
	letGoFor   = 5 * time.Minute // not dialled again after we let go of it
	shedAfter  = 10 * time.Second
	shedEvery  = time.Second
	fewLinks   = 4 // a peer with fewer links is not let go
	anchors    = 2 // of the dialled links so many oldest ones are never tuned away
)
