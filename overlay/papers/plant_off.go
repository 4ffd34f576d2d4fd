//go:build !plantedbugs

package papers

// Bugs that a test build can plant; none here.
const (
	plantBootRepeats = false
)
