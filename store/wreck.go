package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A file that cannot be used is moved aside, and what can still be read of it goes
// into the new one: only peers have the rest.

// marks count lives in a row that began to open the file and did not get through
// the first scan: empty files, since a full disk takes those and nothing else.
func marks(path string) []string { return []string{path + ".opening", path + ".opening2"} }

func lives(path string) (n int) {
	for _, m := range marks(path) {
		if _, err := os.Stat(m); err == nil {
			n++
		}
	}
	return n
}

// mark counts this life. A disk that takes no note is no reason to stay away.
func mark(path string) {
	for _, m := range marks(path) {
		f, err := os.OpenFile(m, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err == nil {
			f.Close()
			return
		}
		if !errors.Is(err, fs.ErrExist) {
			return
		}
	}
}

// settled notes that this life survived, whatever came of it.
func settled(path string) {
	for _, m := range marks(path) {
		os.Remove(m)
	}
}

// moveAside keeps the newest unusable file: several would fill a disk.
func moveAside(path, why string) (aside string, err error) {
	aside = path + "." + why + "-" + time.Now().UTC().Format("20060102T150405.000")
	if err := os.Rename(path, aside); err != nil {
		return "", err
	}
	old, _ := filepath.Glob(path + "." + why + "-*")
	for _, name := range old {
		if name != aside {
			os.Remove(name)
		}
	}
	return aside, syncFolder(path)
}

// opened is what came of an attempt to open the file.
type opened struct {
	disk     *disk
	contents contents
	aside    string // where an unusable file went
	salvaged int    // reports of it that are in the new one
}

// openOrReplace opens path and reads what is in it. A file that is not what was
// written to it, or that two lives in a row did not survive, is moved aside; wreck
// (may be nil) is one that was moved or deleted earlier and not salvaged yet. A
// full, read-only or failing disk and a lock that another holds say nothing
// against the file: then err says so and nothing has changed.
func openOrReplace(path, owner string, wreck *os.File) (o opened, err error) {
	defer settled(path)
	if lives(path) >= 2 {
		if o.aside, err = moveAside(path, "damaged"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return o, err
		}
	}
	mark(path)
	o.disk, o.contents, err = openAndLoad(path, owner)
	if err != nil && !environment(err) {
		why := "damaged"
		if errors.Is(err, errForeign) {
			why = "foreign"
		}
		if o.aside, err = moveAside(path, why); err == nil {
			o.disk, o.contents, err = openAndLoad(path, owner)
		}
		if why == "foreign" {
			return o, err
		}
	}
	if err != nil {
		return o, err
	}
	if wreck == nil && o.aside != "" {
		if wreck, err = os.Open(o.aside); err != nil {
			return o, nil
		}
		defer wreck.Close()
	}
	if wreck != nil {
		o.salvaged, err = o.disk.salvage(wreck, owner, &o.contents)
	}
	return o, err
}

func openAndLoad(path, owner string) (*disk, contents, error) {
	d, err := open(path)
	if err != nil {
		return nil, contents{}, err
	}
	var c contents
	if err = d.sound(); err == nil {
		c, err = d.load(owner)
	}
	if err != nil {
		d.close()
		return nil, contents{}, err
	}
	return d, c, nil
}

// salvage writes what can be found in a wreck and is not here, and reads the file
// anew. Each report is verified as if a peer had sent it.
func (d *disk) salvage(wreck *os.File, owner string, c *contents) (n int, err error) {
	info, err := wreck.Stat()
	if err != nil {
		return 0, nil // nothing left of it
	}
	var found []taken
	flush := func() {
		if err == nil && len(found) > 0 {
			err = d.commit(change{owner: owner, epoch: c.epoch, next: c.next, keep: found})
			n += len(found)
		}
		found = nil
	}
	carve(wreck, info.Size(), func(v []byte) {
		t, bad := takenFrom(slices.Clone(v))
		if bad != nil || c.ix.knows(t.line, t.sketch.seq) {
			return
		}
		if found = append(found, t); len(found) == maxQueued {
			flush()
		}
	})
	if flush(); n > 0 && err == nil {
		*c, err = d.load(owner)
	}
	return n, err
}
