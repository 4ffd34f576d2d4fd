//go:build plantedbugs

package papers

import "os"

// Bugs of a test build, chosen by P2PNODE_PLANT; test/planted must see each turn
// something red.
var (
	plantBootRepeats = os.Getenv("P2PNODE_PLANT") == "boot-repeats"
)
