package store

import "fmt"

// taken is a verified report with what rests of it.
type taken struct {
	sketch
	decoded
	line   line
	packed []byte
}

// newTaken verifies a signed report.
func newTaken(raw []byte) (taken, error) {
	d, l, err := decodeReport(raw)
	if err != nil {
		return taken{}, err
	}
	t := taken{sketch: sketchOf(d.report), decoded: d, line: l}
	t.packed = pack(t.sketch, raw)
	t.size = uint32(len(t.packed))
	return t, nil
}

// takenFrom verifies a report that was found in a file; packed is kept.
func takenFrom(packed []byte) (taken, error) {
	_, raw, err := unpack(packed)
	if err != nil {
		return taken{}, err
	}
	d, l, err := decodeReport(raw)
	if err != nil {
		return taken{}, fmt.Errorf("%w: %v", errDamaged, err)
	}
	t := taken{sketch: sketchOf(d.report), decoded: d, line: l, packed: packed}
	t.size = uint32(len(packed))
	return t, nil
}

func (t taken) place() place { return place{t.line, t.sketch.seq} }

func (t taken) raw() []byte { return t.packed[headSize+sketchSize:] }
