package gossip

import "time"

const (
	maxPacket    = 1472 // bytes of a sealed packet on the wire: one Ethernet frame
	swimPacket   = 1300 // what memberlist may put into one
	packetQueue  = 512  // received packets that memberlist has not taken yet
	streamQueue  = 32
	inputQueue   = 4096
	maxWitnesses = 64 // observations kept about one subject
	maxPeers     = 20_000
	maxWork      = 32  // knocks, dials and joins at a time
	probesPerSec = 200 // that are answered, of all peers together

	burstProbes = 5
	burstGap    = 50 * time.Millisecond
	burstWait   = 250 * time.Millisecond // after the last probe
	burstLate   = 250 * time.Millisecond // a burst that took so much longer shows nothing
	knockTime   = 1500 * time.Millisecond
	dialTime    = time.Second

	tickEvery    = 50 * time.Millisecond
	calmTick     = 250 * time.Millisecond // while nothing is said against anybody
	lateTick     = time.Second            // a tick this late: our own timers cannot be trusted
	abstainFor   = 2 * time.Second        // after a late tick
	againEvery   = 500 * time.Millisecond
	againMost    = 5 * time.Second
	claimTTL     = 15 * time.Second // of a published observation
	claimEvery   = 5 * time.Second
	doubtLasts   = 10 * time.Second // of a doubt that nothing confirms
	twiceLasts   = time.Minute      // of the proof that two processes have one key
	noRouteDoubt = 5 * time.Second
	vetoTime     = time.Second     // a refusal this fresh weighs more than probes that go unanswered
	vetoHolds    = 7 * time.Second // a refusal proves that the host answers, until the next look had no answer: againMost and a knock
	inFlightTime = 150 * time.Millisecond
	shutLooks    = 2                      // refusals in a row that count as nobody there
	contradictIn = 150 * time.Millisecond // a claim of silence waits so long for who hears the subject
	heardHolds   = 6 * time.Second        // a sign of life speaks against silence so long: againMost and a burst
	silentBeats  = 2                      // missed heartbeats that count as a lost link
	meetEvery    = 2 * time.Second        // a join with a neighbour that memberlist lacks
	heardEvery   = 200 * time.Millisecond

	badHealth = 4 // of memberlist's 0 to 7: its probes keep failing where others' do not

	// Points of damping: see damp.go. What breaks every 4 s is damped, what breaks
	// every 10 s is not, and nobody is damped for more than 13 s after the last break.
	flapHalf     = 10 * time.Second
	flapSuppress = 4.0
	flapReuse    = 2.5
	flapMost     = 6.0
	flapQuiet    = 5 * time.Second // of a link that speaks end the damping at once

	keyUseAfter  = 3 * time.Second  // a new key opens packets so long before it seals them
	keyDropAfter = 30 * time.Second // and the old one opens so long

	swimBurntAt    = 1 << 30         // own incarnation; each refutation adds one
	swimAgainEvery = 5 * time.Second // a forger makes us start memberlist anew no more often

	stableAfter = 30 * time.Second // seen well this long: part of the stable membership
	stableKept  = 24 * time.Hour
	brakeShare  = 0.30
	brakeLeast  = 5
)
