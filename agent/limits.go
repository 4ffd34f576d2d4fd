package agent

import "time"

// Limits on what peers can send. Sizes hold on the bytes, before decoding.
const (
	maxTravellerBytes = 16 << 10
	maxAckBytes       = 256
	maxStampBytes     = 16 << 10
	maxClaimBytes     = 1 << 10
	maxOrderBytes     = 14 << 10 // with its manager's certificates

	maxID      = 64 // bytes of any ID, name, life or incarnation
	maxMarks   = 64 // last visits that an agent carries
	maxTrail   = 64
	maxAvoid   = 16
	maxPresent = 64 // agents in one stamp
	maxLabels  = 16

	maxAgentsHere = 128  // agents held at one time; more are refused
	maxWatches    = 1024 // failures followed at one time
	maxCases      = 1024 // local failures followed at one time
	maxStories    = 1024 // failures elsewhere whose end is to be told
	maxOrders     = 32
	maxPopulation = 256 // agents of one order
	maxSeen       = 4096
	maxCensus     = 4096 // agents known anywhere

	// Of one neighbour, or of one signer, so that none of them can crowd out the others.
	maxHeldFrom  = maxAgentsHere / 2
	maxSeenFrom  = maxSeen / 8
	maxNewFrom   = 64 // agents that were never here, within newWindow
	newWindow    = 10 * time.Second
	maxClaimedBy = 32 // failures that it alone names

	// ownMissions is how many missions that this node claimed may be on their way.
	ownMissions = 4
	missionHops = 64
	patrolHops  = 64
)

// Queues; what does not fit is dropped and counted.
const (
	inboxSize  = 1024
	outboxSize = 4096
)

// Times of the protocol. Leases and waits are by the clock of whoever waits.
const (
	claimLease   = 300 * time.Millisecond // of an agent that travels or acts
	claimExtend  = 100 * time.Millisecond
	settleLease  = 1200 * time.Millisecond // of an agent that waits
	settleExtend = 400 * time.Millisecond
	maxLease     = 2 * time.Second // longer ones are cut to this
	claimTTL     = 20 * time.Second
	rankStep     = 150 * time.Millisecond
	silentRanks  = 2 // then nodes may spawn

	handoffFirst  = 400 * time.Millisecond // wait for the ACK of the next hop
	handoffSecond = 400 * time.Millisecond // and of the second choice
	handoffRetry  = 200 * time.Millisecond
	seenFor       = patrolTTL + time.Minute // agents that came by are remembered: a replay is older than what is known

	knockTimeout   = 2 * time.Second
	recoverTimeout = 5 * time.Second
	knockRetry     = 200 * time.Millisecond
	knockTries     = 6
	lifePoll       = 150 * time.Millisecond
	busyRetry      = 50 * time.Millisecond
	actTries       = 40

	missionTTL   = 2 * time.Minute
	patrolTTL    = 10 * time.Minute
	releasedFor  = 3 * time.Second // doubles with each release, up to releasedMax
	releasedMax  = 2 * time.Minute
	refusedFor   = 30 * time.Second
	doneFor      = 10 * time.Second
	stampTTL     = 30 * time.Minute
	stampAtMost  = 200 * time.Millisecond // own stamp is not published more often
	upWait       = time.Minute            // a service that was started may take so long to be up
	orphanSettle = 2                      // settles that are left to whoever acted before another tells his story
	storySettle  = 3                      // and before somebody tells the end who was never there
	lostFor      = time.Minute            // a host that is away for so long tells nobody how its services are
	hostPatience = 200 * time.Millisecond // before a host that nobody reaches is told of
	storyStep    = time.Second            // between ranks that may tell of one, or how a story ended
)

// Population.
const (
	spawnStep     = 500 * time.Millisecond // between ranks that may spawn a missing agent
	censusEvery   = 500 * time.Millisecond
	lossRate      = 0.1 // of agents, that confidence is reckoned with
	retirePatient = 3 * time.Second
	hopAlone      = 5 * time.Millisecond // a hop without the stay, as long as nothing was measured

	shrinkPatience = 8   // service levels before fewer agents are tried
	shrinkBelow    = 0.7 // of the service level that one fewer may come near
)
