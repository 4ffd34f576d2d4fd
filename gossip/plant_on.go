//go:build plantedbugs

package gossip

import "os"

var (
	plantDropBrake   = os.Getenv("P2PNODE_PLANT") == "drop-brake"     // the brake is never on
	plantBelieveSWIM = os.Getenv("P2PNODE_PLANT") == "believe-swim"   // its word needs no look
	plantOneWitness  = os.Getenv("P2PNODE_PLANT") == "one-witness"    // is enough for unreachable, whoever objects
	plantForgetMeet  = os.Getenv("P2PNODE_PLANT") == "forget-to-meet" // neighbours that memberlist lost stay lost
	plantNoVeto      = os.Getenv("P2PNODE_PLANT") == "refusals-stay"  // of a host's last breath
	plantGrudge      = os.Getenv("P2PNODE_PLANT") == "never-forgiven"
)
