package logs

const (
	maxLine      = 4 << 10   // bytes of a line that are kept; the rest is cut
	maxRingLines = 2000      // newest lines in memory
	maxRingBytes = 512 << 10 // and their bytes
	maxFile      = 8 << 20   // a log file's size when it is rotated; two are kept
	maxAway      = 1 << 20   // of each file that the keeper wrote in exec's absence, read at an adoption
	maxRate      = 10 << 20  // bytes of one second that go into the file as they come
	floodTail    = 1 << 20   // and of what a second has beyond: its last bytes
	pipeSize     = 256 << 10 // what the kernel holds for us
	readChunk    = 64 << 10

	excerptLines = 50      // newest lines of an excerpt
	excerptFirst = 10      // first lines of the run in it
	excerptBytes = 4 << 10 // all of it
	firstBytes   = 1 << 10 // share of the first lines when it is cut
)
