package score

import "time"

// Repair is how one supervisor took one fault, again and again: what BenchmarkMTTR
// keeps and the README's table is made of.
type Repair struct {
	Contender string     `json:"contender"`
	Config    string     `json:"config"`
	Fault     string     `json:"fault"`
	Samples   Samples    `json:"samples_ns,omitempty"` // from the fault to the next answer, in order
	Floor     Samples    `json:"floor_ns,omitempty"`   // a bare fork+exec loop in the same minutes
	Never     int        `json:"never,omitempty"`      // faults that nothing was done about within the limit
	Second    int        `json:"second_copies"`        // starts beside a living copy
	ByAgent   int        `json:"by_agent,omitempty"`   // repairs that an agent decided
	Idle      []IdleCost `json:"idle,omitempty"`
	At        time.Time  `json:"at"`
}

// IdleCost is what processes of a supervisor cost while nothing happens.
type IdleCost struct {
	Of        string  `json:"of"` // "exec", or all of it
	Processes int     `json:"processes"`
	RSS       float64 `json:"rss_mib"`
	PSS       float64 `json:"pss_mib"`
	Anonymous float64 `json:"anonymous_mib"`
	CPU       float64 `json:"cpu_ms_per_s"`
}
