package manage

import (
	"encoding/json"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	"p2pnode"
)

// All reports go through the socket, none and many, as the document that API.Reports
// is.
func TestReportsAreStreamed(t *testing.T) {
	w := healthy()
	for _, n := range []int{0, 1, 3} {
		w.reports = nil
		for i := range n {
			w.reports = append(w.reports, p2pnode.Report{Origin: "o", Epoch: "e", Seq: uint64(i + 1), Incident: "i", At: time.Unix(int64(i), 0).UTC()})
		}
		rec := httptest.NewRecorder()
		a := w.api(false)
		a.serveReports(rec, nil)
		var got p2pnode.ReportsDoc
		if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil {
			t.Fatalf("%d reports: %v: %s", n, err, rec.Body)
		}
		want, err := a.Reports(t.Context())
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("streamed %+v, want %+v (%v)", got, want, err)
		}
	}
}
