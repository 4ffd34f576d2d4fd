//go:build plantedbugs

package exec

import "os"

// Bugs of a test build, chosen by P2PNODE_PLANT; test/planted must see each turn
// something red.
var (
	plantNoCookieScan     = os.Getenv("P2PNODE_PLANT") == "no-cookie-scan"
	plantNoopRecover      = os.Getenv("P2PNODE_PLANT") == "noop-recover"
	plantActWithoutVerify = os.Getenv("P2PNODE_PLANT") == "act-without-verify"
	plantSameIncarnation  = os.Getenv("P2PNODE_PLANT") == "incarnation-repeats"
	plantNoBudget         = os.Getenv("P2PNODE_PLANT") == "budget-off"
	plantLoopAsksItself   = os.Getenv("P2PNODE_PLANT") == "loop-asks-itself" // test/inits: its watchdog is the one to see it
)
