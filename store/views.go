package store

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"p2pnode"
)

// All yields every report, oldest first, excerpts opened where this node may. It
// reads one at a time.
func (s *Store) All() iter.Seq[p2pnode.Report] {
	// 16 bytes each: this is as long as the store.
	type spot struct {
		seq  uint64
		line uint32
	}
	s.mu.Lock()
	lines, spots := s.shelf.lines, make([]spot, len(s.shelf.list))
	for i, k := range s.shelf.list {
		spots[i] = spot{k.seq, k.line}
	}
	s.mu.Unlock()
	return func(yield func(p2pnode.Report) bool) {
		for _, at := range spots {
			p := place{lines[at.line], at.seq}
			if d, err := s.read(p); err == nil && !yield(s.open(p, d)) {
				return
			}
		}
	}
}

// Recent are the reports of the newest n incidents (0: a useful number) and of all
// open ones, oldest first, and how many other incidents there are.
func (s *Store) Recent(n int) (iter.Seq[p2pnode.Report], int) {
	if n == 0 {
		n = listed
	}
	s.mu.Lock()
	places, more := s.shelf.recent(n)
	s.mu.Unlock()
	return s.each(places), more
}

// Incident yields the reports of one incident, oldest first.
func (s *Store) Incident(id string) iter.Seq[p2pnode.Report] {
	s.mu.Lock()
	places := s.shelf.of(fingerprint(id))
	s.mu.Unlock()
	return func(yield func(p2pnode.Report) bool) {
		for r := range s.each(places) {
			if r.Incident == id && !yield(r) {
				return
			}
		}
	}
}

// Counts are how many incidents are open, and of how many something was reported
// since t. Nothing is read for it.
func (s *Store) Counts(t time.Time) (open, since int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.shelf.open), s.shelf.since(t)
}

// Reported reports whether this node holds a report of phase for incident.
func (s *Store) Reported(incident string, phase p2pnode.Phase) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shelf.has(fingerprint(incident), phase)
}

func (s *Store) each(places []place) iter.Seq[p2pnode.Report] {
	return func(yield func(p2pnode.Report) bool) {
		for _, p := range places {
			if d, err := s.read(p); err == nil && !yield(s.open(p, d)) {
				return
			}
		}
	}
}

// open is the report as this node may see it. What was opened once is kept:
// opening takes three times as long as reading and verifying.
func (s *Store) open(p place, d decoded) p2pnode.Report {
	r := d.report
	s.mu.Lock()
	e, keys, sealed := s.plain[p], s.readers, s.sealed
	s.mu.Unlock()
	if e == nil && len(d.sealed) > 0 {
		if e = keys.open(d); len(keys) == 0 && sealed != "" {
			e.Why = sealed
		}
		s.mu.Lock()
		if _, cached := s.cache[p]; cached && !e.Sealed {
			s.plain[p] = e
		}
		s.mu.Unlock()
	}
	if e != nil {
		r.Excerpt = new(*e)
	}
	return r
}

// read is one verified report. One that is damaged is dropped, counted, and
// wanted from others again; a file that cannot be read says nothing of a report.
func (s *Store) read(p place) (decoded, error) {
	s.mu.Lock()
	d, ok := s.cache[p]
	s.mu.Unlock()
	if ok {
		return d, nil
	}
	raw, err := s.raw(p)
	if err != nil {
		return decoded{}, err
	}
	d, l, err := decodeReport(raw)
	if err == nil && (place{l, d.report.Seq}) != p {
		err = fmt.Errorf("%w: a report under another's key", errDamaged)
	}
	if err != nil {
		s.quarantine(p, err)
		return decoded{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rememberLocked(p, d)
	return d, nil
}

// raw is one signed report that matches its checksum.
func (s *Store) raw(p place) ([]byte, error) {
	s.mu.Lock()
	t, ok := s.unsaved[p]
	d := s.disk
	s.mu.Unlock()
	if ok {
		return t.raw(), nil
	}
	if d == nil {
		return nil, errDamaged
	}
	v, err := d.get(p)
	if err != nil {
		if errors.Is(err, errDamaged) {
			s.repair()
		}
		return nil, err
	}
	_, raw, err := unpack(v)
	if err != nil {
		s.quarantine(p, err)
	}
	return raw, err
}

// rememberLocked keeps d in memory in place of any other one when that is full: a
// scan of more than fits still finds most of it, where the oldest would find
// nothing.
func (s *Store) rememberLocked(p place, d decoded) {
	if _, known := s.cache[p]; !known && len(s.cache) >= maxCached {
		for victim := range s.cache {
			delete(s.cache, victim)
			delete(s.plain, victim)
			break
		}
	}
	s.cache[p] = d
}

func (s *Store) quarantine(p place, err error) {
	s.metrics.damaged.Inc()
	s.cfg.Log.Error().Err(err).Stringer("origin", p.l.origin).Uint64("seq", p.seq).Msg("damaged report dropped, fetched again")
	s.mu.Lock()
	s.ix.of(p.l).here.drop(p.seq)
	s.shelf.drop(map[place]struct{}{p: {}})
	s.mu.Unlock()
	s.poke()
}
