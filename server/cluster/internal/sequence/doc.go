// Package sequence numbers what each node says on each subject, so that those who follow
// the subject find what they have missed, and what came twice.
//
// A publisher's table is bounded ([Out]): a subject on which it has been silent for long is
// forgotten, and begins a new series when it is used again. So a [Number] is a series and a
// place in it:
//
//	bits 63…32 series, counted over all subjects of the node · 31…0 place in the series, from 1
//
// The numbers of one node on one subject only grow. The publisher tells the last one also
// without a message ([Tail]): when the subject has been quiet for a moment, so that a lost
// last message is found, and when it is forgotten.
//
// A receiver keeps the last number of each node for each subject that it follows ([In]). It
// begins to follow at the number that the node itself names when it is asked
// ([Out.Last], [In.At]). From there on each number is a message that was delivered, or one
// that is said to be lost.
//
// The package knows no network and no clock.
package sequence
