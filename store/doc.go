// Package store keeps the signed reports of the whole fleet on every node.
//
// A report never changes. It is signed by its origin and known by (origin, epoch,
// seq); merging two stores is the union of their sets, so any node can hand any
// other what it lacks, in any order, any number of times. Pulling from a random
// neighbour now and then is enough for all stores to become equal; the signed
// head that an origin floods only makes it quick.
//
// Promises:
//
//   - Put returns nil after fsync. Several puts share one (group commit, 2 ms).
//   - The disk holds up nobody: one that is full, failing, read-only or hanging, and
//     a file that another process holds, make Put say ErrUnsaved within 2 s. Such
//     reports live in memory (bounded), are shown, spread, and are written when the
//     disk works again. Trouble says what is wrong.
//   - No number stands for two reports: an epoch ends wherever it is not certain
//     which of its numbers are taken.
//   - Nothing is served that was not verified: a flipped bit is noticed at the next
//     start or when it is read, counted, dropped, and fetched again.
//   - A damaged file never takes the process down: bbolt's panics and faults are
//     caught. A file that is damaged, gone, somebody else's, or that two lives in a
//     row did not survive, is moved aside; what can be read of it is salvaged.
//   - Excerpts of logs rest and travel sealed to the cluster's reader key. Every
//     node replicates them, managers read them.
//   - Memory is 48 bytes a report, and a bounded cache.
//   - Every limit is in limits.go and holds on the bytes before decoding.
//
// Read next: index.go for the merge, retain.go for what is kept, run.go for the
// goroutine that decides, disk.go for what bbolt does to us, sync.go.
package store
