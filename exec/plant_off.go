//go:build !plantedbugs

package exec

// Bugs that a test build can plant; none here.
const (
	plantNoCookieScan     = false
	plantNoopRecover      = false
	plantActWithoutVerify = false
	plantSameIncarnation  = false
	plantNoBudget         = false
	plantLoopAsksItself   = false
)
