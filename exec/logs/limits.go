package logs

// How much of a service's output is on disk: at most one file more than are kept, each
// a little larger than its size, by what comes at once (maxRate's end, an absence).
const (
	DefaultSize = 8 << 20 // bytes of a log file when it is rotated
	DefaultKeep = 1       // rotated files

	// A file takes at once what is kept of a flood, and holds what memory reads back.
	MinSize = 1 << 20
	MaxSize = 64 << 30
	// What was printed just before a rotation is in the file before.
	MinKeep = 1
	MaxKeep = 100
)

const (
	maxLine      = 4 << 10   // bytes of a line that are kept; the rest is cut
	maxRingLines = 2000      // newest lines in memory
	maxRingBytes = 512 << 10 // and their bytes
	maxAway      = 1 << 20   // of each file that the keeper wrote in exec's absence, read at an adoption
	maxRate      = 10 << 20  // bytes of one second that go into the file as they come
	floodTail    = 1 << 20   // and of what a second has beyond: its last bytes
	pipeSize     = 256 << 10 // what the kernel holds for us
	readChunk    = 64 << 10
	maxHeld      = 256 // files that all queries hold, beyond the one that each reads

	excerptLines = 50      // newest lines of an excerpt
	excerptFirst = 10      // first lines of the run in it
	excerptBytes = 4 << 10 // all of it
	firstBytes   = 1 << 10 // share of the first lines when it is cut
)
