package route

// Limits on what others can make this package hold or compute.
const (
	// MaxEdges is how many links one record may list. A node keeps about eight; a
	// founder that everybody joined through may have many more for a while.
	MaxEdges = 256
	// MaxBody is the size of a link record's body, looked at before decoding.
	MaxBody = 16 << 10
	// maxTrees bounds the shortest-path trees that a Table keeps for later
	// questions: 8 bytes per node and tree, 2 MB at 1,000 nodes.
	maxTrees = 256
	// maxPenalty keeps the sum over a way of 10,000 nodes inside 31 bits.
	maxPenalty = 1 << 16
	// maxAlternatives is how many other ways Alternatives lists.
	maxAlternatives = 4
)
