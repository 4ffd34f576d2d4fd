package overlay

import "time"

// Limits of what a peer can send or cause. Each is checked before the work that it
// bounds, and each refusal has a counter with its reason.
const (
	maxFrame       = 72 << 10 // a link's frame: a batch of records, a call
	maxHello       = 48 << 10 // hello with its chain of certificates
	maxBulkRequest = 64 << 10
	maxBulkAnswer  = 4 << 20
	maxKind        = 32
	maxName        = 64
	maxTrail       = 32 // hops of a routed call
	maxLabels      = 32
	maxAddrs       = 16
	maxLives       = 4   // of one member that are remembered
	maxText        = 255 // bytes of a label, an address, a word of explanation

	maxCallsPerLink  = 64 // handlers at work for one link
	maxBulkPerPeer   = 4
	maxConnsTotal    = 512
	maxConnsPerAddr  = 64 // not of loopback
	maxStreamsPerCon = 64
	maxLinksPerPeer  = 4   // duplicates that are not settled yet
	maxHellos        = 4   // of a connection that has not passed
	linkQueue        = 256 // frames that wait for a link's writer
	gossipQueue      = 64  // accepted gossip streams nobody took yet
	deliveryQueue    = 8192

	helloTime    = 5 * time.Second // a whole hello
	joinTime     = 12 * time.Second
	gateTime     = 2 * time.Second // how long other streams wait for hello
	dialTime     = 4 * time.Second
	writeTime    = 2 * time.Second // a frame on its way into the kernel
	beatEvery    = time.Second
	tickEvery    = 250 * time.Millisecond // of the keeper, until its links have stood for
	steadyAfter  = 30 * time.Second       // ... so long; then with each heartbeat
	echoEach     = 4                      // beats: so often one is answered, and the way measured
	idleTime     = 30 * time.Second       // a connection that carries nothing
	strangerTime = 15 * time.Second       // a connection that shows no certificate; longer than joinTime
	entropyEvery = 5 * time.Second
	holdDown     = 2 * time.Second // between link records, after a burst of
	linkBurst    = 4
	coalesce     = 50 * time.Millisecond
	hurry        = 2 * time.Millisecond   // of what somebody waits for: a new life, a good-bye
	hopTime      = 800 * time.Millisecond // of a routed call's first choice

	addrsEvery = 10 * time.Second // looks at this host's own addresses
	byeTime    = 200 * time.Millisecond

	peerTTL   = 24 * time.Hour
	peerEvery = 10 * time.Minute
	linkTTL   = 10 * time.Minute
	linkEvery = 3 * time.Minute
	leaveTTL  = 24 * time.Hour

	maxOpen       = 24 * time.Hour   // the longest that `open` may last
	pendingTTL    = 2 * time.Minute  // that one who asked is shown; who waits asks again every joinRefused
	pendingSay    = 20 * time.Second // between saying again that somebody asks
	approvedTTL   = time.Hour        // that one who was approved may come in
	renewEvery    = time.Hour        // between attempts to get a new certificate
	readerStep    = 3 * time.Second  // between the managers that may make a new reader key, and before the first
	readerSoon    = 2 * time.Second  // between questions for reader keys that are lacked
	readerEvery   = 10 * time.Minute // else
	returnsWithin = 10 * time.Minute // of a life that another had replaced, to count as one row

	searchTime = 3 * time.Second // for others, before a node founds a cluster
	relayTime  = 3 * time.Second // for one manager to answer a joiner's request

	maxFound     = 64  // peers that multicast discovery told of
	maxAsked     = 4   // of those, and of the peer book, that a joiner asks between two rounds of --join
	maxPlaces    = 32  // addresses asked at once who answers there
	maxTroubles  = 64  // different reasons why nobody could be joined, each said now and then
	maxAdmitting = 8   // requests for admission at work
	maxTokens    = 64  // in force at once
	maxRevoked   = 256 // revocations by one manager
	maxMarks     = 600 // certificates kept by one record of a revocation: 9.6 of its 16 KiB
	maxForgotten = 256 // by one manager within peerTTL
	maxGone      = 4096
	maxWords     = 256 // revocations and demotions that a reader key names: 2 of its record's 16 KiB
	maxShares    = 64  // managers that get a reader key with its record: 8 KiB
	maxPending   = 32  // strangers that one manager lists
	maxGrants    = 256 // of one manager, those that ended within MaxTokenTTL too
)

// Reasons of refusal, also the names of their counters.
const (
	ReasonFrame       = "bad-frame"
	ReasonStranger    = "not-a-member"
	ReasonForeign     = "foreign-cluster"
	ReasonRevoked     = "revoked"
	ReasonNoCluster   = "no-cluster"
	ReasonJoining     = "joining" // no cluster either, and will not found one
	ReasonDenied      = "link-denied"
	ReasonGate        = "before-hello"
	ReasonProtocol    = "unknown-protocol"
	ReasonCrowded     = "too-many-calls"
	ReasonPromotion   = "promotion-forged"
	ReasonRenewal     = "renewal-refused"
	ReasonPending     = "too-many-pending"
	ReasonShare       = "reader-key-refused" // a share or a handover that is not right
	ReasonLoop        = "routed-in-a-circle"
	ReasonElsewhere   = "own-key-elsewhere" // a record of our key that this life did not sign
	ReasonSelf        = "self"
	ReasonUnknownKind = "unknown-kind"
	ReasonNoRoute     = "no-route"
	ReasonHandshake   = "handshake-failed" // garbage, half-open, or not our protocols
	ReasonNoHello     = "no-hello"         // a connection that showed no certificate in time
	ReasonStreams     = "too-many-streams"
	ReasonLinks       = "too-many-links" // of one peer
	ReasonFound       = "too-many-found" // told by multicast
)
