package store

import (
	"bufio"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// relaxAfter is how many reports, read or written, make it worth while.
const relaxAfter = 200

// relax gives back the pages of the file that this process has mapped and read. They
// stay in the page cache, but count no longer as memory of the process: a whole
// store that was read once would else weigh 200 MB for ever. What the reading left
// behind in the heap goes too: the runtime by itself keeps as much as is alive, for
// minutes, and a hundred thousand reports leave 20 MB.
func (d *disk) relax() {
	if d.used.Swap(0) < relaxAfter {
		return
	}
	defer debug.FreeOSMemory()
	// Within a transaction bbolt keeps the mapping where it is.
	d.view(func(b buckets) error {
		if b.meta == nil {
			return nil
		}
		start, end, ok := mappingOf(uintptr(unsafe.Pointer(unsafe.SliceData(b.meta.Get(keyOwner)))), d.path)
		if ok {
			unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTNEED)
		}
		return nil
	})
}

// mappingOf is the mapping of the file at path around an address. Of anything but
// this very file's mapping MADV_DONTNEED would wipe memory.
func mappingOf(at uintptr, path string) (start, end uintptr, ok bool) {
	f, err := os.Open("/proc/self/maps")
	if err != nil {
		return 0, 0, false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var perms string
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s", &start, &end, &perms); n != 3 || at < start || at >= end {
			continue
		}
		return start, end, strings.HasSuffix(perms, "s") && strings.HasSuffix(lines.Text(), path)
	}
	return 0, 0, false
}
