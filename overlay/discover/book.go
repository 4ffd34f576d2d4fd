package discover

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"p2pnode"
)

// Entry is a peer that this node had a link with, or whose record it holds.
type Entry struct {
	ID    peer.ID   `json:"id"`
	Name  string    `json:"name,omitempty"`
	Addrs []string  `json:"addrs"` // host:port, the one that last worked first
	Seen  time.Time `json:"seen"`  // when it last proved its key, or signed what we hold
}

// Book is the peer book: whom to dial after a restart. Safe for concurrent use.
type Book struct {
	path string

	saving sync.Mutex // one Save at a time, so that the newest one is the last

	mu      sync.Mutex
	entries map[peer.ID]Entry
	dirty   bool
}

// OpenBook reads the book at path; a file that is not there is an empty book. A
// damaged one is moved aside: then err says so and the book is empty, and good
// for use.
func OpenBook(path string) (*Book, error) {
	b := &Book{path: path, entries: map[peer.ID]Entry{}}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return b, nil
	}
	if err == nil && info.Size() > maxBook {
		err = fmt.Errorf("%d bytes", info.Size())
	}
	if err == nil {
		err = b.read()
	}
	if err == nil {
		return b, nil
	}
	clear(b.entries)
	aside := path + ".damaged"
	return b, errors.Join(fmt.Errorf("peer book %s unreadable, moved to %s: %w", path, aside, err), os.Rename(path, aside))
}

func (b *Book) read() error {
	raw, err := os.ReadFile(b.path)
	if err != nil {
		return err
	}
	var list []Entry
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	for _, e := range list {
		if e.ID.Validate() != nil {
			return errors.New("an entry without an ID")
		}
		b.Put(e)
	}
	b.dirty = false
	return nil
}

// Put adds or replaces a peer. The book is written by Save.
func (b *Book) Put(e Entry) {
	e.Addrs = slices.Clone(e.Addrs[:min(len(e.Addrs), maxAddrs)])
	b.mu.Lock()
	defer b.mu.Unlock()
	if old, ok := b.entries[e.ID]; ok && old.Name == e.Name && slices.Equal(old.Addrs, e.Addrs) && e.Seen.Sub(old.Seen) < time.Minute {
		return // not worth a write
	}
	b.entries[e.ID] = e
	b.dirty = true
	if len(b.entries) > maxEntries {
		list := b.sortedLocked()
		delete(b.entries, list[len(list)-1].ID)
	}
}

// Remove forgets a peer.
func (b *Book) Remove(id peer.ID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.entries[id]; ok {
		delete(b.entries, id)
		b.dirty = true
	}
}

// Clear forgets all peers.
func (b *Book) Clear() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.entries)
	b.dirty = true
}

// Entries lists the peers, last seen first.
func (b *Book) Entries() []Entry {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.sortedLocked()
}

func (b *Book) sortedLocked() []Entry {
	out := make([]Entry, 0, len(b.entries))
	for _, e := range b.entries {
		e.Addrs = slices.Clone(e.Addrs)
		out = append(out, e)
	}
	slices.SortFunc(out, func(x, y Entry) int { return cmp.Or(y.Seen.Compare(x.Seen), cmp.Compare(x.ID, y.ID)) })
	return out
}

// Newest is when anybody in the book was last seen: time was at least that late.
func (b *Book) Newest() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out time.Time
	for _, e := range b.entries {
		if e.Seen.After(out) {
			out = e.Seen
		}
	}
	return out
}

// Save writes the book if it has changed.
func (b *Book) Save() error {
	b.saving.Lock()
	defer b.saving.Unlock()
	b.mu.Lock()
	dirty, list := b.dirty, b.sortedLocked()
	b.dirty = false
	b.mu.Unlock()
	if !dirty {
		return nil
	}
	raw, err := json.Marshal(list)
	if err == nil {
		err = p2pnode.WriteFile(b.path, append(raw, '\n'), 0o600)
	}
	if err != nil {
		b.mu.Lock()
		b.dirty = true
		b.mu.Unlock()
		return fmt.Errorf("cannot write the peer book: %w", err)
	}
	return nil
}
