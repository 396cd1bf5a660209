package sequence

// In is how far a receiver is with each node on one subject. The zero In follows nobody. It
// is for one goroutine at a time. A node costs 24 bytes.
type In struct{ tracks []track }

// track is how far a receiver is with one node.
type track struct {
	node  uint64
	last  Number
	ended bool // the series of last is over, and was heard to its end
}

// Gap is what was missed on a subject. Lost messages are known by their numbers. Unsure says
// that more may be lost, because a series has ended unheard.
type Gap struct {
	Lost   uint64
	Unsure bool
}

// Message takes the number of a message that has arrived. The message is to be delivered if
// fresh is true; otherwise it came twice, or came too late, and counts as lost already. A
// node of which nothing is known is followed from here on; known says that the node has said
// nothing before this series that this receiver could have missed.
func (in *In) Message(node uint64, n Number, known bool) (fresh bool, g Gap) {
	if t := in.track(node); n.place() == 0 || t != nil && n <= t.last {
		return false, g
	}
	g = in.Tail(node, n, false, known)
	if g.Lost > 0 {
		g.Lost-- // it is here
	}
	return true, g
}

// Tail takes the last number that a node has used.
func (in *In) Tail(node uint64, n Number, end, known bool) (g Gap) {
	t := in.track(node)
	switch {
	case t == nil:
		in.tracks = append(in.tracks, track{node: node, last: n, ended: end})
		if known {
			g.Lost = uint64(n.place())
		}
		return g
	case n > t.last:
		g = t.to(n)
	case n < t.last:
		return g
	}
	t.ended = t.ended || end
	return g
}

// At takes a node's own word about how far it is ([Out.Last]), in answer to a question that
// was sent when this receiver followed the subject already. From here on nothing is lost
// unsaid, but for whole series that begin and end while the receiver cannot hear the node.
func (in *In) At(node uint64, n Number) Gap { return in.Tail(node, n, n.place() == 0, false) }

// Forget forgets a node.
func (in *In) Forget(node uint64) {
	for i := range in.tracks {
		if in.tracks[i].node == node {
			last := len(in.tracks) - 1
			in.tracks[i] = in.tracks[last]
			in.tracks = in.tracks[:last]
			return
		}
	}
}

func (in *In) track(node uint64) *track {
	for i := range in.tracks {
		if in.tracks[i].node == node {
			return &in.tracks[i]
		}
	}
	return nil
}

// to moves on to a greater number, and returns the gap with that number in it.
func (t *track) to(n Number) (g Gap) {
	if n.series() == t.last.series() {
		g.Lost = uint64(n - t.last)
	} else {
		g = Gap{Lost: uint64(n.place()), Unsure: !t.ended}
	}
	t.last, t.ended = n, false
	return g
}
