package manage

import "time"

// Limits of this package.
const (
	maxEvents  = 4096            // remembered; a quarter is dropped at once when full
	maxRequest = 64 << 10        // bytes of one request's body
	maxAnswer  = 512 << 20       // bytes of one answer that the client reads: 100,000 reports
	maxCallers = 256             // connections to the operator's socket at a time; fewer where descriptors are few
	dialTime   = 2 * time.Second // client: until the socket has accepted
	// sameTrouble is how soon after a repair a failure is the same trouble: exec
	// forgets its count of failures after as long a good life.
	sameTrouble = 10 * time.Second
	// forgetDoubt is how long a node must have been in doubt for being forgotten: what
	// gets no clear verdict in that time gets none.
	forgetDoubt = time.Minute
	callTime    = 30 * time.Second // server: one request that is no stream
)
