package score

import (
	"testing"
	"time"
)

func TestGoalsAreJudged(t *testing.T) {
	ms := func(n ...int) (s Samples) {
		for _, n := range n {
			s = append(s, time.Duration(n)*time.Millisecond)
		}
		return s
	}
	kill := Repair{Contender: "p2pnode", Fault: "kill -9", Samples: ms(8, 9, 10), Floor: ms(3, 3, 3)}
	for name, test := range map[string]struct {
		r, alone Repair
		kept     bool
		text     string
	}{
		"within":                {kill, Repair{}, true, "median 10 ms, max 50 ms, 3 x"},
		"median":                {Repair{Contender: "p2pnode", Fault: "kill -9", Samples: ms(11, 11, 11), Floor: ms(9)}, Repair{}, false, "median 10 ms, max 50 ms, 3 x"},
		"times the floor":       {Repair{Contender: "p2pnode", Fault: "kill -9", Samples: ms(8, 9, 10), Floor: ms(2)}, Repair{}, false, "median 10 ms, max 50 ms, 3 x"},
		"one was never mended":  {Repair{Contender: "p2pnode", Fault: "kill -9", Samples: ms(8), Floor: ms(8), Never: 1}, Repair{}, false, "median 10 ms, max 50 ms, 3 x"},
		"a second copy":         {Repair{Contender: "p2pnode", Fault: "kill -9", Samples: ms(8), Floor: ms(8), Second: 1}, Repair{}, false, "median 10 ms, max 50 ms, 3 x"},
		"p95":                   {Repair{Contender: "p2pnode, stop_grace: 0s", Fault: "SIGSTOP", Samples: ms(5, 5, 21)}, Repair{}, false, "median 10 ms, p95 20 ms"},
		"later than alone":      {Repair{Contender: "p2pnode", Fault: "kill -9 beside 2,000 processes", Samples: ms(13)}, kill, false, "+3.0 ms"},
		"not much later":        {Repair{Contender: "p2pnode", Fault: "kill -9 beside 2,000 processes", Samples: ms(12)}, kill, true, "+3.0 ms"},
		"nothing to compare to": {Repair{Contender: "p2pnode", Fault: "kill -9 beside 2,000 processes", Samples: ms(1)}, Repair{}, false, "+3.0 ms"},
		"somebody else":         {Repair{Contender: "runit", Fault: "kill -9", Samples: ms(8)}, Repair{}, true, ""},
	} {
		if text, kept := test.r.Judge(test.alone); kept != test.kept || text != test.text {
			t.Errorf("%s: %q, kept %v", name, text, kept)
		}
	}
	if _, kept := (IdleCost{Of: "exec", RSS: 20, Anonymous: 6, CPU: 1}).Judge(false); kept {
		t.Error("1 ms/s without checks is not within 0.1")
	}
	if _, kept := (IdleCost{Of: "exec", RSS: 20, Anonymous: 6, CPU: 1}).Judge(true); !kept {
		t.Error("1 ms/s with ten checks is within 1.5")
	}
}
