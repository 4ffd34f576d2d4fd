//go:build !race

package bubble

// RaceDetector tells that the test runs under it: memory and times are its own then.
const RaceDetector = false
