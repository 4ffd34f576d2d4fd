// Package logs owns what a service prints: it reads the service's FIFO, keeps
// the newest lines in memory and the newest megabytes on disk, and cuts the
// excerpt that a report quotes.
//
// It promises:
//
//   - The service is never blocked by us while exec lives: reading goes on
//     whatever the disk does; what cannot be written is dropped and counted.
//   - A flood is bounded on disk: of a second that has more than 10 MB the file gets
//     the first 10 MB, the last one, and a count of what is missing (flood.go).
//   - Lines keep their order; stdout and stderr are one stream. After a death
//     Drain has read every byte that the kernel held.
//   - Memory is bounded (limits.go), whatever is printed and however large the files
//     may become: a line of a gigabyte is cut, invalid UTF-8 and control characters are
//     replaced.
//   - A rotation or a take of what the keeper wrote that is cut short by a kill loses no
//     line and doubles none.
//   - An excerpt is at most 4 KiB, masked (mask.go) before it leaves this package.
//   - Files of others are opened only where they are regular files.
//
// A Log is safe for concurrent use. Tests use a real FIFO in t.TempDir().
//
// Read next: log.go, then chain.go, excerpt.go and mask.go.
package logs
