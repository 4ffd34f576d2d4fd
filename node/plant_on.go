//go:build plantedbugs

package node

import "os"

// Bugs of a test build, chosen by P2PNODE_PLANT; test/planted must see each turn
// something red.
var (
	plantReportDropped = os.Getenv("P2PNODE_PLANT") == "report-dropped"
	plantNoFetch       = os.Getenv("P2PNODE_PLANT") == "reports-not-fetched"
)
