package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/libp2p/go-libp2p/core/peer"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// The file has three buckets:
//
//	reports   key of the report -> as in layout.go
//	papers    origin -> checksum and certificates
//	meta      "owner" -> cluster; "file" -> which file this is; "epoch" -> this node's epoch in it;
//	          "next" -> 8 bytes, number of its next report; "gone" | line key -> checksum and
//	          numbers that were given up
//
// Each has an empty bucket "apart" in it: bbolt then gives it pages of its own. A
// small bucket without one rests inside its parent's page, and bbolt reads it from
// a copy on the heap, where a flipped bit leads into other people's memory.
//
// bbolt panics on a truncated file and takes SIGBUS when it is truncated while
// open; every use goes through guarded, which makes errors of both.
var (
	bucketReports = []byte("reports")
	bucketPapers  = []byte("papers")
	bucketMeta    = []byte("meta")
	keyOwner      = []byte("owner")
	keyFile       = []byte("file")
	keyEpoch      = []byte("epoch")
	keyNext       = []byte("next")
	keyApart      = []byte("apart")
	gonePrefix    = "gone"
)

var (
	// errDamaged means that the file is not what was written to it.
	errDamaged = errors.New("store file damaged")
	// errForeign means that the file is of another cluster, or no store at all.
	errForeign = errors.New("store file of somebody else")
	// errMoved means that the path no longer leads to the file that is open.
	errMoved = errors.New("store file was taken away")
)

// guarded runs f and turns panics and memory faults inside it into errDamaged.
func guarded(f func() error) (err error) {
	old := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(old)
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v", errDamaged, r)
		}
	}()
	return f()
}

// disk is the bbolt file. Once bbolt has panicked in a write its locks may be held
// for ever, also against Close: such a disk is dead, it is never touched again and
// leaks its descriptor until the process ends.
type disk struct {
	db       *bbolt.DB
	file     *os.File // bbolt's own
	path     string
	readOnly bool
	dead     atomic.Bool
	used     atomic.Int64 // reports read or written since the last relax
	fault    func() error // tests: what a commit meets before it begins
}

// environment reports whether err is of the disk or of another process, and not
// of the file's bytes. bbolt keeps some errors of the kernel as text only.
func environment(err error) bool {
	if errors.Is(err, errDamaged) || errors.Is(err, errForeign) || errors.Is(err, errMoved) {
		return false
	}
	if errors.Is(err, bolterrors.ErrTimeout) || errors.Is(err, bolterrors.ErrDatabaseReadOnly) {
		return true
	}
	return slices.ContainsFunc(diskErrors, func(e syscall.Errno) bool {
		return errors.Is(err, e) || strings.Contains(err.Error(), e.Error())
	})
}

// diskErrors come from no damage. EFBIG, ENOMEM and EINVAL are not among them: a
// flipped bit in the list of free pages makes bbolt write petabytes away.
var diskErrors = []syscall.Errno{
	syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.EACCES, syscall.EPERM, syscall.EISDIR,
	syscall.ENOENT, syscall.ENOTDIR, syscall.EMFILE, syscall.ENFILE, syscall.ENODEV, syscall.ENXIO, syscall.ESTALE,
}

// open opens path as it is, or makes it. A disk that takes no writes is still
// good for reading.
func open(path string) (*disk, error) {
	d, err := openAs(path, false)
	if err != nil && (errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EACCES)) {
		if reading, err := openAs(path, true); err == nil {
			return reading, nil
		}
	}
	return d, err
}

func openAs(path string, readOnly bool) (d *disk, err error) {
	d = &disk{path: path, readOnly: readOnly}
	err = guarded(func() (err error) {
		d.db, err = bbolt.Open(path, 0o600, &bbolt.Options{
			Timeout: openTimeout, FreelistType: bbolt.FreelistMapType, ReadOnly: readOnly, NoStatistics: true,
			OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
				f, err := os.OpenFile(name, flag, mode)
				d.file = f
				return f, err
			},
		})
		return err
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		err = fmt.Errorf("another process holds %s: %w", path, err)
	}
	if err == nil && !readOnly {
		// It may be new. What is acknowledged must be found after a power cut: the name too.
		err = syncFolder(path)
	}
	if err != nil {
		if d.db != nil && !errors.Is(err, errDamaged) {
			d.close()
		}
		return nil, err
	}
	return d, nil
}

func syncFolder(path string) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func (d *disk) close() error {
	if d.dead.Load() {
		return nil
	}
	return guarded(d.db.Close)
}

// buckets are those of one transaction; nil in a file that was never written.
type buckets struct{ reports, papers, meta *bbolt.Bucket }

func (d *disk) view(f func(buckets) error) error {
	d.used.Add(1)
	return d.alive(func() error {
		return d.db.View(func(tx *bbolt.Tx) error {
			return f(buckets{tx.Bucket(bucketReports), tx.Bucket(bucketPapers), tx.Bucket(bucketMeta)})
		})
	})
}

// update commits what f does, durably. A panic in f or in bbolt is an error and
// nothing is committed.
func (d *disk) update(f func(buckets) error) error {
	return d.alive(func() error {
		if d.fault != nil {
			if err := d.fault(); err != nil {
				return err
			}
		}
		return d.db.Update(func(tx *bbolt.Tx) (err error) {
			var b buckets
			for name, bucket := range map[string]**bbolt.Bucket{string(bucketReports): &b.reports, string(bucketPapers): &b.papers, string(bucketMeta): &b.meta} {
				if *bucket, err = tx.CreateBucketIfNotExists([]byte(name)); err != nil {
					return err
				}
				if (*bucket).Bucket(keyApart) != nil {
					continue
				}
				if _, err = (*bucket).CreateBucket(keyApart); err != nil {
					return err
				}
			}
			return f(b)
		})
	})
}

// sound reports whether every page ends within the file, and what is in it within the
// page. bbolt believes those numbers: with one flipped bit it frees four billion pages,
// or makes room for gigabytes, in memory, when it next writes there.
func (d *disk) sound() error {
	if d.readOnly {
		return nil // nothing is written
	}
	return d.alive(func() error {
		return d.db.View(func(tx *bbolt.Tx) error {
			size := d.db.Info().PageSize
			all := int(tx.Size() / int64(size))
			for id := 0; id < all; {
				page, err := tx.Page(id)
				if err != nil || page == nil {
					return err
				}
				if id++; page.Type == "free" {
					continue // what it says is of another time
				}
				if id += page.OverflowCount; id > all {
					return fmt.Errorf("%w: page %d goes on for %d pages, the file has %d", errDamaged, page.ID, page.OverflowCount, all)
				}
				if page.Type != "leaf" && page.Type != "branch" {
					continue
				}
				if err := d.within(int64(page.ID)*int64(size), page.Count, (1+page.OverflowCount)*size, page.Type == "branch"); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// A page begins with 16 bytes of its own, then 16 bytes for each of its elements: where
// it is, counted from there, how long its key is and its value, or, in a branch, which
// page it leads to.
const pageHead, pageElement = 16, 16

// within reports whether the elements of a page of so many bytes, somewhere in the
// file, lie in it.
func (d *disk) within(start int64, count, bytes int, branch bool) error {
	bad := func() error { return fmt.Errorf("%w: the page at %d has elements beyond its end", errDamaged, start) }
	if pageHead+count*pageElement > bytes {
		return bad()
	}
	raw := make([]byte, count*pageElement)
	if _, err := d.file.ReadAt(raw, start+pageHead); err != nil {
		return err
	}
	for at := 0; at < len(raw); at += pageElement {
		n := func(i int) int { return int(binary.NativeEndian.Uint32(raw[at+4*i:])) }
		end := n(1) + n(2) + n(3) // flags, place, key, value
		if branch {
			end = n(0) + n(1) // place, key, page
		}
		if pageHead+at+end > bytes {
			return bad()
		}
	}
	return nil
}

// alive runs f unless the disk is dead, and notes when f kills it, or shows that
// the list of free pages is damaged: nothing could be written any more.
func (d *disk) alive(f func() error) error {
	if d.dead.Load() {
		return errDamaged
	}
	err := guarded(f)
	if errors.Is(err, syscall.EFBIG) || errors.Is(err, bolterrors.ErrDatabaseNotOpen) {
		err = fmt.Errorf("%w: %v", errDamaged, err)
	}
	if errors.Is(err, errDamaged) {
		d.dead.Store(true)
	}
	return err
}

// there reports whether the path still leads to the open file: what is written to
// one that was deleted or replaced is gone with this life.
func (d *disk) there() error {
	mine, err := d.file.Stat()
	if err != nil {
		return err
	}
	if now, err := os.Stat(d.path); err != nil || !os.SameFile(mine, now) {
		return errMoved
	}
	return nil
}

// self names the file itself: a copy has another name.
func (d *disk) self() []byte {
	info, err := d.file.Stat()
	if err != nil {
		return nil
	}
	st := info.Sys().(*syscall.Stat_t)
	return fmt.Appendf(nil, "%d:%d", st.Dev, st.Ino)
}

// change is what one commit does.
type change struct {
	owner, epoch string
	next         uint64
	keep         []taken
	drop         []place
	gone         map[line]spans
	forget       []line // of which nothing is here: what was given up is not remembered
	papers       map[peer.ID][][]byte
}

// commit makes c durable as a whole or not at all.
func (d *disk) commit(c change) error {
	if err := d.there(); err != nil {
		return err
	}
	d.used.Add(int64(len(c.keep)))
	return d.update(func(b buckets) error {
		for _, p := range c.drop {
			if err := b.reports.Delete(reportKey(p)); err != nil {
				return err
			}
		}
		for _, t := range c.keep {
			if err := b.reports.Put(reportKey(t.place()), t.packed); err != nil {
				return err
			}
		}
		for l, gone := range c.gone {
			if err := b.meta.Put(goneKey(l), checked(gone.encode())); err != nil {
				return err
			}
		}
		for _, l := range c.forget {
			if err := b.meta.Delete(goneKey(l)); err != nil {
				return err
			}
		}
		for id, chain := range c.papers {
			raw, err := encodePapers(chain)
			if err != nil {
				return err
			}
			if err := b.papers.Put([]byte(id), checked(raw)); err != nil {
				return err
			}
		}
		return errors.Join(b.meta.Put(keyOwner, []byte(c.owner)), b.meta.Put(keyFile, d.self()), b.meta.Put(keyEpoch, []byte(c.epoch)),
			b.meta.Put(keyNext, binary.BigEndian.AppendUint64(nil, c.next)))
	})
}

func goneKey(l line) []byte { return append([]byte(gonePrefix), lineKey(l)...) }

// get is the signed report at p, as it rests; nil if there is none.
func (d *disk) get(p place) (v []byte, err error) {
	err = d.view(func(b buckets) error {
		if b.reports != nil {
			v = append([]byte(nil), b.reports.Get(reportKey(p))...)
		}
		return nil
	})
	return v, err
}
