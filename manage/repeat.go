package manage

import (
	"cmp"
	"slices"

	"p2pnode"
)

// repeats folds failures that follow each other into one incident: what fails
// again within sameTrouble of its repair never was well. The incident keeps the
// name of the first failure, so that it stays the same one while it goes on, and
// tells the facts of the last.
func repeats(list []p2pnode.Incident) []p2pnode.Incident {
	type thing struct {
		node, service string
		kind          p2pnode.IncidentKind
	}
	threads := map[thing][]p2pnode.Incident{}
	for _, i := range list {
		of := thing{i.NodeID, i.Service, i.Kind}
		threads[of] = append(threads[of], i)
	}
	out := make([]p2pnode.Incident, 0, len(list))
	for _, thread := range threads {
		slices.SortFunc(thread, func(a, b p2pnode.Incident) int {
			return cmp.Or(a.DetectedAt.Compare(b.DetectedAt), cmp.Compare(a.ID, b.ID))
		})
		begin := 0
		for n := 1; n <= len(thread); n++ {
			if n == len(thread) || !follows(thread[n-1], thread[n]) {
				out = append(out, joined(thread[begin:n]))
				begin = n
			}
		}
	}
	return out
}

// follows reports whether b is a failure of what the repair of a made. The
// incarnations say so; clocks only say how soon, and those are one exec's.
func follows(a, b p2pnode.Incident) bool {
	return a.NewIncarnation != "" && a.NewIncarnation == b.OldIncarnation && !a.RecoveredAt.IsZero() && b.DetectedAt.Sub(a.RecoveredAt) < sameTrouble
}

// joined is the incident that failures in a row make.
func joined(row []p2pnode.Incident) p2pnode.Incident {
	one := row[len(row)-1]
	if len(row) == 1 {
		return one
	}
	one.ID, one.FirstAt, one.Count, one.Reports = row[0].ID, row[0].DetectedAt, 0, 0
	for _, i := range row {
		one.Count += i.Count
		one.Reports += i.Reports
		one.Failures = append(one.Failures, i.ID)
	}
	for _, i := range slices.Backward(row) {
		if one.Excerpt == nil {
			one.Excerpt = i.Excerpt
		}
	}
	return one
}

// isAbout reports whether i is the incident called id, or has a failure of that
// name in it.
func isAbout(i p2pnode.Incident, id string) bool {
	return i.ID == id || slices.Contains(i.Failures, id)
}
