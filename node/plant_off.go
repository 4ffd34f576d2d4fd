//go:build !plantedbugs

package node

// Bugs that a test build can plant; none here.
const (
	plantReportDropped = false
	plantNoFetch       = false
)
