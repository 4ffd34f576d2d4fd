//go:build plantedbugs

package agent

import "os"

var (
	plantNoLapse      = os.Getenv("P2PNODE_PLANT") == "claim-without-lapse"
	plantActBlind     = os.Getenv("P2PNODE_PLANT") == "act-without-verify"
	plantBrakeOff     = os.Getenv("P2PNODE_PLANT") == "brake-off"
	plantTakeTwice    = os.Getenv("P2PNODE_PLANT") == "handoff-taken-twice" // (id, hop) is not remembered
	plantStayBehind   = os.Getenv("P2PNODE_PLANT") == "stay-after-ack"      // the sender keeps the agent that it sent
	plantNoEnd        = os.Getenv("P2PNODE_PLANT") == "story-without-end"   // nobody tells how a story ended
	plantActOnDoubt   = os.Getenv("P2PNODE_PLANT") == "act-on-doubt"
	plantOrderIgnored = os.Getenv("P2PNODE_PLANT") == "order-ignored"
)
