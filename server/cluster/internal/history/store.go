package history

// Read asks for what is stored of a topic. It is answered by [History.Restore] for each entry,
// in any order, and then [History.Restored], which name its Seq.
type Read struct {
	Topic string
	Seq   uint64
}

// read has the store read for a ring that other nodes were asked about, unless they have told
// enough.
func (h *History) read(i uint32, now int64, out *Results) {
	r := h.rings.At(i)
	r.flags &^= unread
	if r.count == r.most || r.age > 0 && h.since(r) <= now-int64(r.age)*1000 {
		return
	}
	r.flags |= reading
	h.seq++
	h.reads[h.seq] = i
	out.Reads = append(out.Reads, Read{h.topicName(r), h.seq})
}

// giveUpReading forgets that the store is read for a ring. With unread it is read once more.
func (h *History) giveUpReading(i uint32, then uint8) {
	r := h.rings.At(i)
	if r.flags&reading == 0 {
		return
	}
	r.flags = r.flags&^reading | then
	for seq, of := range h.reads {
		if of == i {
			delete(h.reads, seq)
		}
	}
}

// Restore takes an entry that is stored, and reports whether it was not here.
func (h *History) Restore(read uint64, e Entry, out *Results) (news bool) {
	i, ok := h.reads[read]
	return ok && e.Node != 0 && e.Number > e.Previous && h.merge(i, e, out)
}

// Restored says that all that is stored was passed to Restore, and that everything that was
// published since a time and until the reading began was stored, or is named by an entry that was. The
// time is [Never] if the store cannot say so.
func (h *History) Restored(read uint64, since, now int64, out *Results) {
	i, ok := h.reads[read]
	if !ok {
		return
	}
	h.giveUpReading(i, 0)
	r := h.rings.At(i)
	r.since, r.vouched = min(h.since(r), since), now
	h.settle(i, out)
}

// Never is later than all times.
const Never = timeMost
