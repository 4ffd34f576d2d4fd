//go:build !plantedbugs

package gossip

// Bugs planted by the build tag plantedbugs; the tests must catch each.
const (
	plantDropBrake   = false
	plantBelieveSWIM = false
	plantOneWitness  = false
	plantForgetMeet  = false
	plantNoVeto      = false
	plantGrudge      = false
)
