package sequence

import (
	"container/list"
	"time"
)

// Out numbers what a node says. It is for one goroutine at a time. Times are of any clock
// that does not go backwards.
//
// A subject is
//
//	absent → fresh: something was said ⇄ told: its tail was told since → absent
//
// Both lists are in the order of the last message, the oldest first, and all that is told is
// older than what is fresh.
type Out struct {
	max    int
	series uint32
	places map[string]*list.Element // of *place
	fresh  *list.List
	told   *list.List
}

// place is how far a subject is.
type place struct {
	subject string
	last    Number
	at      time.Duration // of the last message
	told    bool
}

// Tail is how far a node is on a subject. End says that the series is over: the next message
// begins another one.
type Tail struct {
	Subject string
	Last    Number
	End     bool
}

// NewOut returns a table of at most max subjects.
func NewOut(max int) *Out {
	return &Out{max: max, places: map[string]*list.Element{}, fresh: list.New(), told: list.New()}
}

// Next is the number of a message on a subject. If the table is full, the subject that has
// been quiet for longest is forgotten, and its tail is returned, to be told.
func (o *Out) Next(subject string, now time.Duration) (n Number, forgotten *Tail) {
	e := o.places[subject]
	if e == nil {
		if len(o.places) == o.max {
			forgotten = o.forget()
		}
		o.series++
		e = o.fresh.PushBack(&place{subject: subject, last: number(o.series, 0)})
		o.places[subject] = e
	}
	p := e.Value.(*place)
	if p.last.place() == placeMax {
		o.series++
		p.last = number(o.series, 0)
	}
	p.last++
	p.at = now
	if p.told {
		p.told = false
		o.told.Remove(e)
		o.places[subject] = o.fresh.PushBack(p)
	} else {
		o.fresh.MoveToBack(e)
	}
	return p.last, forgotten
}

// Last is how far the node is on a subject. Where the subject is not in the table, all later
// messages are of later series.
func (o *Out) Last(subject string) Number {
	if e := o.places[subject]; e != nil {
		return e.Value.(*place).last
	}
	return number(o.series, 0)
}

// Tails appends the tails that are to be told now to dst, at most max: of subjects that have
// been quiet for longer than quiet, and were not told since, and of those that have been
// quiet for longer than life, which are forgotten.
func (o *Out) Tails(dst []Tail, now, quiet, life time.Duration, max int) []Tail {
	for ; max > 0; max-- {
		e := o.told.Front()
		if e == nil || now-e.Value.(*place).at < life {
			break
		}
		dst = append(dst, *o.forget())
	}
	for ; max > 0; max-- {
		e := o.fresh.Front()
		if e == nil || now-e.Value.(*place).at < quiet {
			break
		}
		p := o.fresh.Remove(e).(*place)
		p.told = true
		o.places[p.subject] = o.told.PushBack(p)
		dst = append(dst, Tail{Subject: p.subject, Last: p.last})
	}
	return dst
}

// Repeat has all tails told again, because they may have been lost.
func (o *Out) Repeat() {
	for e := o.told.Back(); e != nil; e = o.told.Back() {
		p := o.told.Remove(e).(*place)
		p.told = false
		o.places[p.subject] = o.fresh.PushFront(p)
	}
}

// forget forgets the subject that has been quiet for longest.
func (o *Out) forget() *Tail {
	from := o.told
	if from.Len() == 0 {
		from = o.fresh
	}
	p := from.Remove(from.Front()).(*place)
	delete(o.places, p.subject)
	return &Tail{Subject: p.subject, Last: p.last, End: true}
}
