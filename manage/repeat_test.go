package manage

import (
	"math/rand/v2"
	"reflect"
	"strconv"
	"testing"
	"time"

	"p2pnode"
)

// crash is one failure of web on C, ms after t0, back after 5 ms.
func crash(n, ms int) []p2pnode.Report {
	at := t0.Add(time.Duration(ms) * time.Millisecond)
	r := acted(uint64(10*n), ms)
	r.Kind, r.Service, r.Class = p2pnode.KindService, "web", p2pnode.ClassExited
	r.Incident, r.Old, r.New = "i-"+strconv.Itoa(n), "e-"+strconv.Itoa(n), "e-"+strconv.Itoa(n+1)
	r.DetectedAt, r.RecoveredAt = at, at.Add(5*time.Millisecond)
	r.At = r.RecoveredAt
	return []p2pnode.Report{r}
}

func TestRepeatsAreOneIncident(t *testing.T) {
	var reports []p2pnode.Report
	for n, ms := range []int{0, 1000, 2000, 30000} { // the last one after a good life
		reports = append(reports, crash(n, ms)...)
	}
	rng := rand.New(rand.NewPCG(1, 1))
	rng.Shuffle(len(reports), func(i, j int) { reports[i], reports[j] = reports[j], reports[i] })
	got := Fold(reports, names)
	if len(got) != 2 || got[0].ID != "i-3" || got[0].Count != 1 || got[0].Failures != nil || !got[0].FirstAt.IsZero() {
		t.Fatalf("%+v", got)
	}
	one := got[1]
	if one.ID != "i-0" || one.Count != 3 || one.Reports != 3 || !reflect.DeepEqual(one.Failures, []string{"i-0", "i-1", "i-2"}) {
		t.Errorf("%+v", one)
	}
	// It looks like its last failure, so that who made that one finds it.
	if !one.FirstAt.Equal(t0) || !one.DetectedAt.Equal(t0.Add(2*time.Second)) || one.OldIncarnation != "e-2" || one.NewIncarnation != "e-3" {
		t.Errorf("%+v", one)
	}
	for _, id := range []string{"i-0", "i-1", "i-2"} {
		if !isAbout(one, id) || isAbout(got[0], id) {
			t.Errorf("%s is not found", id)
		}
	}
}

func TestWhatIsNoRepeat(t *testing.T) {
	other := func(change func(*p2pnode.Report)) []p2pnode.Report {
		second := crash(1, 1000)
		change(&second[0])
		return append(crash(0, 0), second...)
	}
	for name, reports := range map[string][]p2pnode.Report{
		"another life in between": other(func(r *p2pnode.Report) { r.Old = "e-7" }),
		"another service":         other(func(r *p2pnode.Report) { r.Service = "db" }),
		"another node":            other(func(r *p2pnode.Report) { r.Node = "A" }),
		"ten seconds later":       other(func(r *p2pnode.Report) { r.DetectedAt = t0.Add(10*time.Second + 5*time.Millisecond) }),
	} {
		if got := Fold(reports, names); len(got) != 2 {
			t.Errorf("%s: %d incidents, want 2", name, len(got))
		}
	}
}

// A failure that was not repaired ends the row: nobody can say whose life the next
// one is.
func TestRepeatOfWhatIsDown(t *testing.T) {
	down := crash(0, 0)[0]
	down.Phase, down.New, down.RecoveredAt, down.Held = p2pnode.PhaseRefused, "", time.Time{}, p2pnode.HeldMaintenance
	if got := Fold(append([]p2pnode.Report{down}, crash(1, 1000)...), names); len(got) != 2 {
		t.Errorf("%+v", got)
	}
}

func TestShowFindsAFoldedFailure(t *testing.T) {
	w := healthy()
	w.reports = append(crash(0, 0), crash(1, 1000)...)
	doc, err := w.api(true).Incident(t.Context(), "i-1")
	if err != nil || len(doc.Incidents) != 1 || doc.Incidents[0].ID != "i-0" || len(doc.Reports) != 1 || doc.Reports[0].Incident != "i-1" {
		t.Errorf("%+v %v", doc, err)
	}
}
