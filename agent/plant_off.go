//go:build !plantedbugs

package agent

// Bugs planted by the build tag plantedbugs; the checker must catch each.
const (
	plantNoLapse      = false
	plantActBlind     = false
	plantBrakeOff     = false
	plantTakeTwice    = false
	plantStayBehind   = false
	plantNoEnd        = false
	plantActOnDoubt   = false
	plantOrderIgnored = false
)
