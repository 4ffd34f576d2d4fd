package exec

import "time"

// MaxMaintenance is the longest time that a service may be left alone.
const MaxMaintenance = 30 * 24 * time.Hour

// Restart policy.
const (
	freeLife      = time.Second            // a first life this long is followed by a restart at once
	lastAnswers   = 3                      // of a failing check that are told
	firstLife     = 300 * time.Millisecond // with nothing that says ready, a start that somebody waits for is up when it lived this long
	backoffFirst  = 100 * time.Millisecond // then this, doubled each time
	backoffMax    = 30 * time.Second
	clearAfter    = 10 * time.Second // a life that was ready this long clears backoff and failures
	loopWindow    = 60 * time.Second // loopFailures in it are a crash loop
	loopFailures  = 5
	slowLane      = 60 * time.Second // plus up to a third
	budgetWindow  = 10 * time.Minute
	budgetStarts  = 20
	stormWindow   = time.Second // stormStarts in it by services that keep failing, of the whole host
	stormStarts   = 20
	worldEvery    = 150 * time.Millisecond // look at what a missing service misses
	worldUnseen   = 10 * time.Second       // not all of it can be seen: it is tried after this whatever the looks say,
	worldSeldom   = 5 * time.Minute        // then after twice the time, up to this
	blockedEvery  = time.Second            // look at a lock whose holder cannot be seen
	busyLimit     = 30 * time.Second       // busy, not hung: killed after this long without one good answer
	firstCheck    = 10 * time.Millisecond  // first question to a fresh service; the gap doubles up to its period
	ownThreads    = 10                     // that exec has from its start on, and needs no pid for later
	lonelyGrace   = 100 * time.Millisecond // grace of a node process that had no link or no standing order
	lastWords     = 500 * time.Millisecond // a start waits this long at most for the excerpt of what it replaces
	nodeSilence   = 15 * time.Second       // a node process that said hello and then nothing for this long is hung
	killPatience  = 5 * time.Second        // a killed process that lives longer is unkillable
	heldFor       = 500 * time.Millisecond // ... and in a shutdown after this: others are not held up by it
	initReaps     = 2 * time.Second        // a second start waits so long at most for an init to take the status of a life before
	dyingHolder   = 10 * time.Millisecond  // a held lock's holder is looked for in all of /proc after that
	holderSight   = time.Second            // how long a held lock's holder is looked for
	sweepAfter    = 50 * time.Millisecond  // the look through the whole host leaves a fresh process its core
	checkGather   = 250 * time.Millisecond // questions that are due within it are asked together
	checkBurst    = 16                     // at most so many
	slowAnswer    = 8                      // a check unanswered after this part of its timeout: the process is looked at
	sameAge       = 20 * time.Millisecond  // lives that began within it are of one age: the kernel counts an adopted one's in hundredths
	adoptedPoll   = 250 * time.Millisecond // /proc look at an adopted process: a stop raises no signal for us
	dyingFor      = time.Second            // a killed exec's lock is waited for
	diskEvery     = time.Second            // what the disk refused is tried again
	helloWait     = 5 * time.Second        // until a client has said who it is
	kmsgEvery     = time.Second            // the kernel log is read on so often, where something was written
	keeperWait    = 500 * time.Millisecond // how long a starting exec waits for a living keeper
	retellFor     = time.Minute            // a failure that the last exec mended is told again
	retellMost    = 8                      // and so many repairs before that one, of one service
	cgroupRest    = time.Minute            // an empty group this old is nobody's
	groupWait     = 100 * time.Millisecond // a start waits so long at most for the groups of v1 of the life before to be empty,
	groupRest     = 2 * time.Second        // the end of exec or of a service's declaration so long
	scopeWait     = 5 * time.Second        // systemd has so long to make a scope, and after a no it is asked again
	answerGrace   = 500 * time.Millisecond // a question that is over has so long to come back
	leftPatience  = 5 * time.Second        // what a check left behind is killed for so long
	dumpFor       = 2 * time.Second        // a hung program may print its stacks for this long
	settleFor     = 2 * time.Second        // a process of a new binary lives this long before the next one is replaced
	trialFor      = 20 * time.Second       // how long a new binary may look at the state
	quietWait     = 10 * time.Second       // an upgrade waits this long for starts and stops under way
	quietLook     = 2 * time.Millisecond
	roleBack      = 20 * time.Second // a door or node process of a new binary must be up by then
	shutdownShare = 8                // @node and @door have this part of a shutdown, each, whatever services take
)

// Sizes. Every one bounds what a client or a program can make exec hold.
const (
	maxFrame       = 1 << 20 // bytes of one control frame
	maxSigned      = 32 << 10
	maxChallenges  = 1024             // orders of managers within challengeLife
	maxSignedWait  = 20 * time.Second // a manager's order waits for its outcome
	challengeLife  = 30 * time.Second
	maxReads       = 4               // logs that managers read from afar at once
	readsBurst     = 30              // and at most so many one after the other, then one each
	readsEvery     = 2 * time.Second // ... so often
	maxReadLines   = 10_000          // of each service
	maxReadBytes   = 1 << 20         // of an answer's past, all services together
	maxReadGrep    = 512
	maxReadBatch   = 24 << 10              // bytes of lines that are sealed together
	readBatch      = 50 * time.Millisecond // what is followed is sent so often at most
	readLook       = 5 * time.Second       // whether the reader still may is looked at again
	readQueue      = 4                     // sealed batches that wait for the node process
	maxFrameFDs    = 2
	maxClients     = 64
	eventRing      = 512
	clientQueue    = 256 // frames for one slow reader; more closes the connection
	opMemory       = 256 // answers kept for repeated Recover ops
	maxServices    = 512
	maxEnvFile     = 1 << 20 // bytes of one env_file
	busyProgress   = 0.02    // share of one core that counts as progress
	quotaProgress  = 0.002   // likewise, where a quota is used up: a fifth of a hundredth of a core; what hangs there does up to 0.0008 on questions
	highestLockFD  = 256
	maxAudit       = 1 << 20  // bytes of the audit log; two files are kept
	maxAuditWait   = 256      // entries that wait for a disk; the oldest go first
	maxKernelLine  = 8 << 10  // bytes of one record of the kernel log
	maxKernelLines = 1 << 16  // of one look
	maxKilled      = 512      // kills for want of memory that nobody has asked about: most are not of services
	maxWhy         = 512      // bytes of the answers of a check that are kept
	maxAncestors   = 16       // of a process that says something by sd_notify
	maxEarly       = 16       // sd_notify messages of a process that is not known yet
	maxTrialSays   = 64 << 10 // bytes that a binary on trial may say
	maxAuditText   = 512      // bytes of each text in one
	recalledFrom   = 1 << 32  // incarnations go on from here where their numbers were lost
)
