package chaos

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Kind is what is broken.
type Kind string

// The kinds.
const (
	KillService Kind = "service"   // kill -9 of one service
	KillNode    Kind = "node"      // kill -9 of the node process
	KillDoor    Kind = "door"      // kill -9 of the door
	KillAll     Kind = "children"  // kill -9 of everything that exec has started, at once
	KillBox     Kind = "container" // docker kill, docker start
	Pause       Kind = "pause"     // docker pause, unpause
	Cut         Kind = "network"   // docker network disconnect, connect with another address
	FillDisk    Kind = "disk"      // the data folder's file system is full; a service is killed meanwhile
	KillFleet   Kind = "fleet"     // docker kill of all, docker start of all
)

// Fault is one line of a schedule.
type Fault struct {
	At      time.Duration // since the start
	Kind    Kind
	Box     int           // which container; of no meaning for KillFleet
	Service int           // which service, for KillService and FillDisk
	For     time.Duration // how long it lasts, where it lasts
}

// String is the line that is printed when the fault is made.
func (f Fault) String() string {
	s := fmt.Sprintf("%7.1fs  %-9s", f.At.Seconds(), f.Kind)
	if f.Kind != KillFleet {
		s += fmt.Sprintf(" %s", names[f.Box])
	}
	if f.Kind == KillService || f.Kind == FillDisk {
		s += "/" + services[f.Service]
	}
	if f.For > 0 {
		s += fmt.Sprintf(" for %.1fs", f.For.Seconds())
	}
	return s
}

// mix is how often each kind comes, of 100, and how long its container is left
// alone afterwards, so that what follows can be told from what went before.
var mix = []struct {
	kind        Kind
	share       int
	least, most time.Duration // of For
	rest        time.Duration
}{
	{KillService, 34, 0, 0, 5 * time.Second},
	{KillNode, 18, 0, 0, 8 * time.Second},
	{KillDoor, 8, 0, 0, 5 * time.Second},
	{KillAll, 6, 0, 0, 10 * time.Second},
	{KillBox, 8, 500 * time.Millisecond, 4 * time.Second, 15 * time.Second},
	{Pause, 10, 3 * time.Second, 15 * time.Second, 10 * time.Second},
	{Cut, 10, 3 * time.Second, 15 * time.Second, 10 * time.Second},
	{FillDisk, 6, 3 * time.Second, 8 * time.Second, 8 * time.Second},
}

const (
	between    = 1600 * time.Millisecond // faults, on the average
	fleetEvery = 100 * time.Second       // the whole cluster dies
	fleetRest  = 25 * time.Second

	// Exec's restart policy takes the fifth failure in 60 s for a crash loop, and
	// starts nothing more than 20 times in 10 min. A schedule that went beyond
	// would test its patience, not its repairs.
	burstMost, burstTime   = 3, 65 * time.Second
	budgetMost, budgetTime = 14, 11 * time.Minute
)

// Plan is the schedule of a seed: the same arguments give the same faults. The
// last one is over, and has rested, by length.
func Plan(seed uint64, boxes, services int, length time.Duration) []Fault {
	p := planner{rng: rand.New(rand.NewPCG(seed, 0xc4a05)), free: make([]time.Duration, boxes), hits: map[target][]time.Duration{}}
	fleet := fleetEvery/2 + p.between(0, fleetEvery/2)
	var out []Fault
	for at := p.gap(); at < length; at += p.gap() {
		if at >= fleet && at+fleetRest <= length {
			out = append(out, Fault{At: at, Kind: KillFleet, For: p.between(500*time.Millisecond, 3*time.Second)})
			fleet += fleetEvery
			at += fleetRest
			continue
		}
		for range 4 {
			if f, ok := p.one(at, boxes, services, length); ok {
				out = append(out, f)
				break
			}
		}
	}
	return out
}

// target is what exec counts failures of.
type target struct {
	box  int
	name string
}

type planner struct {
	rng  *rand.Rand
	free []time.Duration // when each container has rested
	hits map[target][]time.Duration
}

func (p *planner) between(least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return least + time.Duration(p.rng.Int64N(int64(most-least)))
}

func (p *planner) gap() time.Duration { return p.between(between/4, between*7/4) }

// one draws a fault for time at; ok is false where the container that was drawn
// is not rested, or has had enough of that kind.
func (p *planner) one(at time.Duration, boxes, count int, length time.Duration) (Fault, bool) {
	n, i := p.rng.IntN(100), 0
	for ; n >= mix[i].share; i++ {
		n -= mix[i].share
	}
	m := mix[i]
	f := Fault{At: at, Kind: m.kind, Box: p.rng.IntN(boxes), For: p.between(m.least, m.most)}
	service := p.rng.IntN(count)
	if m.kind == KillService || m.kind == FillDisk {
		f.Service = service
	}
	over := at + f.For + m.rest
	if p.free[f.Box] > at || over > length || !p.afford(f, count) {
		return f, false
	}
	p.free[f.Box] = over
	return f, true
}

// afford reports whether exec still restarts at once what f kills, and notes it.
func (p *planner) afford(f Fault, count int) bool {
	var killed []target
	switch f.Kind {
	case KillService, FillDisk:
		killed = []target{{f.Box, services[f.Service]}}
	case KillNode, KillDoor:
		killed = []target{{f.Box, string(f.Kind)}}
	case KillAll:
		killed = []target{{f.Box, string(KillNode)}, {f.Box, string(KillDoor)}}
		for _, s := range services[:count] {
			killed = append(killed, target{f.Box, s})
		}
	}
	for _, t := range killed {
		var burst, budget int
		for _, at := range p.hits[t] {
			if f.At-at < burstTime {
				burst++
			}
			if f.At-at < budgetTime {
				budget++
			}
		}
		if burst >= burstMost || budget >= budgetMost {
			return false
		}
	}
	for _, t := range killed {
		p.hits[t] = append(p.hits[t], f.At)
	}
	return true
}
