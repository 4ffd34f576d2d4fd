package exec

import (
	"time"

	"p2pnode"
)

// event is something that happened; effect is something to be done.
type (
	event  interface{ event() }
	effect interface{ effect() }
)

// Events.
type (
	// evBoot ends the adoption phase; found is what lives, ended what a record
	// says ran and that is gone now, unborn what the last exec was about to start.
	evBoot struct {
		life   p2pnode.Life // that the node process last said, where an exec before this one heard it
		found  []found
		ended  []evEnded
		unborn []unborn
	}
	// unborn has the past of a service whose start the last exec did not get through
	// with. The start may have been: it counts, and with it the restart, where it was one.
	unborn struct {
		name     string
		starts   []time.Time
		restarts int // this one included; 0: it was to be the first life
	}
	found struct {
		name    string
		inc     p2pnode.Incarnation
		pid     int
		ours    bool // still our child (self-exec), else adopted
		starts  []time.Time
		started time.Time     // as it was written down
		began   time.Time     // by its age
		last    *p2pnode.Exit // of the life before

		restarts int
	}
	// evStarted: the start asked for is through. looked is when exec had seen for
	// itself that no copy lived.
	evStarted struct {
		name   string
		inc    p2pnode.Incarnation
		pid    int
		looked time.Time
	}
	evStartFailed struct {
		name string
		inc  p2pnode.Incarnation
		kind startFailure
		text string
	}
	evEnded struct {
		name   string
		inc    p2pnode.Incarnation
		exit   p2pnode.Exit
		starts []time.Time // of an end that no exec saw: the budget that was used

		restarts int // likewise
	}
	evFrozen struct {
		name string
		inc  p2pnode.Incarnation
	}
	evThawed struct{ name string }
	// evMain: another process of the same life is the main one now.
	evMain struct {
		name string
		pid  int
	}
	evChecked struct {
		name    string
		inc     p2pnode.Incarnation
		which   string // of its checks
		rules   int    // under which it was asked, see health
		err     error
		timeout bool    // no answer in time, rather than a wrong one
		late    bool    // our own clock for it was late: the host, or we, stood still
		busy    float64 // share of one core that the tree used since the last question; busyProgress at least if it was kept from one
		skip    bool    // stopped, traced or in D state: does not count
		traced  bool
	}
	evNotified struct {
		name  string
		ready bool
		beat  bool
		hung  bool // the program itself says so
		more  time.Duration
		text  string // what it says of itself, for people
	}
	// evLooked answers effLook and effDrain: nothing that was under way is
	// uncounted, and the process is, or is not, held by somebody.
	evLooked struct {
		name   string
		held   bool // stopped, traced, frozen or in D state
		traced bool
	}
	evWorld   struct{ name string } // what it waited for has changed
	evRecover struct {
		id  uint64 // names the effAnswer
		req p2pnode.RecoverRequest
		by  p2pnode.By
	}
	// evOrder is a person's start, stop or restart.
	evOrder struct {
		verb  string
		name  string
		force bool
		by    string // who
	}
	evMaintenance struct {
		name  string
		until time.Time
	}
	evObserve struct {
		name string // "" is the whole host
		on   bool
	}
	// evNode: the node process connected, went or spoke.
	evNode struct {
		connected bool
		at        time.Time // when it spoke, where that was before now; else zero
		life      p2pnode.Life
		links     int
		orders    int
	}
	evReload struct {
		id     uint64
		loaded Loaded
	}
	evShutdown struct {
		keep    bool
		within  time.Duration
		instant bool // a leash ended: no time for anybody
	}
	evTick struct{ late time.Duration }
)

// startFailure says why a start did not lead to a process.
type startFailure int

const (
	startMissing    startFailure = iota // the world lacks something; watched
	startRetry                          // ETXTBSY: nothing to watch, try again
	startBlocked                        // a copy seems to live
	startUnkillable                     // the old process does not die
	startBroken                         // fork failed: memory, processes
	startTraced                         // a debugger holds the old process: it is not killed
	startNeedless                       // the old process works again
)

// Effects.
type (
	effOpen  struct{ spec p2pnode.ServiceSpec } // make what a service needs before its first start
	effStart struct {
		name   string
		inc    p2pnode.Incarnation
		old    p2pnode.Incarnation
		class  p2pnode.Class // why the old one is replaced; "" on a first start
		why    string        // in more words, where the old one lives
		target string
		by     p2pnode.By
		op     string
		live   bool // the old process lives and must be killed
		force  bool
		starts []time.Time

		restarts int       // of the life that begins
		failed   time.Time // when the failure that it mends was found; zero where there was none
	}
	effGiveUp struct{ name string } // nobody wants the start in flight any more
	effSignal struct {
		name string
		inc  p2pnode.Incarnation
	}
	effKill struct {
		name  string
		inc   p2pnode.Incarnation
		class p2pnode.Class
	}
	effCleanup struct { // the main process ended in a stop: kill what it left
		name string
		inc  p2pnode.Incarnation
	}
	effLeftSo struct { // it ended and is left so: for the next exec to know
		name string
		inc  p2pnode.Incarnation
		exit p2pnode.Exit
	}
	effEvent  struct{ event p2pnode.ExecEvent }
	effAnswer struct {
		id     uint64
		answer p2pnode.RecoverAnswer
	}
	effRefused struct { // for the history
		name, op string
		reason   p2pnode.Refusal
	}
	effCheck struct {
		name  string
		inc   p2pnode.Incarnation
		which string
		rules int
		check p2pnode.Check
	}
	effDrain    struct{ name string } // count all heartbeats under way, then look
	effLook     struct{ name string } // is it traced?
	effProbe    struct{ name string }
	effPersist  struct{}
	effDeath    struct{ life p2pnode.Life }
	effForget   struct{ name string }
	effReloaded struct {
		id     uint64
		result ReloadResult
	}
	effDone struct{} // shutdown is through
)

func (evBoot) event()        {}
func (evStarted) event()     {}
func (evStartFailed) event() {}
func (evEnded) event()       {}
func (evFrozen) event()      {}
func (evThawed) event()      {}
func (evMain) event()        {}
func (evChecked) event()     {}
func (evNotified) event()    {}
func (evLooked) event()      {}
func (evWorld) event()       {}
func (evRecover) event()     {}
func (evOrder) event()       {}
func (evMaintenance) event() {}
func (evObserve) event()     {}
func (evNode) event()        {}
func (evReload) event()      {}
func (evShutdown) event()    {}
func (evTick) event()        {}

func (effOpen) effect()     {}
func (effStart) effect()    {}
func (effGiveUp) effect()   {}
func (effSignal) effect()   {}
func (effKill) effect()     {}
func (effCleanup) effect()  {}
func (effLeftSo) effect()   {}
func (effEvent) effect()    {}
func (effAnswer) effect()   {}
func (effRefused) effect()  {}
func (effCheck) effect()    {}
func (effDrain) effect()    {}
func (effLook) effect()     {}
func (effProbe) effect()    {}
func (effPersist) effect()  {}
func (effDeath) effect()    {}
func (effForget) effect()   {}
func (effReloaded) effect() {}
func (effDone) effect()     {}
