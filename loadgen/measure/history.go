package measure

import "time"

// PointsMax is how many points a History has at most. With a point a second it lasts
// an hour before neighbours are joined.
const PointsMax = 3600

// Joiner is a point that can be made one with the next.
type Joiner[P any] interface {
	Join(next P) P
}

// History is a bounded list of points. When it is full, neighbours are joined, so that
// each covers twice the time. The zero value is empty. It belongs to one goroutine
// at a time.
type History[P Joiner[P]] struct {
	points []P
	joined int // how often neighbours were joined
}

// Every is how much time a point should cover.
func (h *History[P]) Every() time.Duration { return time.Second << h.joined }

// Add adds the next point.
func (h *History[P]) Add(p P) {
	if h.points = append(h.points, p); len(h.points) < PointsMax {
		return
	}
	half := h.points[:0]
	for i := 0; i < PointsMax; i += 2 {
		half = append(half, h.points[i].Join(h.points[i+1]))
	}
	h.points = half
	h.joined++
}

// Points are the points until now. They belong to h and change with the next Add.
func (h *History[P]) Points() []P { return h.points }
