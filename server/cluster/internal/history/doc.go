// Package history keeps the last messages of topics, so that a client that was away
// gets what it missed, from whichever node it comes to, or is told that it cannot.
//
// Messages, entries and time go in and out as values: the package knows no network,
// no clock and no goroutine. A node is known by a number that it draws when it
// starts, so a node that was restarted is another node.
//
// # Rings and positions
//
// Each node that follows a topic keeps a ring of its last entries, by number, age and
// bytes. A ring of one is the last message alone ([History.Last]).
//
// There is no order of a topic that all nodes share: that would take a node through
// which all of it passes, a hop more for each message, and nothing would be delivered
// while that node cannot be reached. What all nodes share is each publisher's order. A
// publisher numbers its entries, and each names the one before it in the topic:
//
//	node A   4 ◄─ 7 ◄─ 8          the ring here:   A4 B2 A7 B3 A8
//	node B   2 ◄─ 3               another one's:   B2 A4 B3 A7
//
// So a position is the newest number of each publisher (A8 B3), and means the same
// everywhere. Owed is what is newer. Whether all of it is there can be seen: the oldest
// entry that is owed names one that the client had, each other one names the one
// before it, and the last one is the newest that is known to exist. Otherwise something
// is missing, and the client is told so.
//
// A position also has a time. A node vouches for a topic since it began to keep it, or
// since another node did that has told it everything since. A client whose position is
// older than that is told that something may be missing.
//
// Publishers that have been silent for ten minutes, and of which nothing is kept, are
// left out of positions, as is the most silent one of more than 64.
//
// # What was lost is found, or said
//
//	           an entry names one that has not come,
//	           or a number is told that has not come
//	complete ──────────────────────────────────────► hole ──it comes, or is found──► complete: Late
//	                                                  │
//	                                                  └──asked, and nobody has it──► lost: Lost
//
// A node asks the others about a topic when it begins to keep it, when there is a hole,
// and when it is told that something may have been missed ([History.Lost]); and once more
// a second later, for what was on its way:
//
//	asked ──offer──► wanted ──all parts──► asked again, if they brought something
//	  │ nobody offers     │ they do not come: asked again, twice
//	  └────► done ◄───────┘
//
// Of those who offer it takes the first, so that one ring is transferred, and not one
// from each node. What it finds it puts in order, each entry once. What the members
// here should have had and have not is [Late], to be delivered to them.
//
//	kind     to      what it says
//	(entry)  topic   a message, whose numbers and times are in the caller's envelope
//	tail     topic   my last number in the topic, a second after the message that had it, or a later one
//	ask      topic   this is what I have of the topic: runs of numbers, and since when
//	offer    node    I have, or know of, more
//	want     node    send it. This is what I have now
//	entries  node    what you have not, in parts; the last numbers; since when I vouch
//
// # After a restart of all nodes
//
// With [Options.Store] entries are stored outside of nodes, too, by whoever publishes them and
// without waiting for it. A node that begins to keep a topic asks the others first. Unless
// they have told it enough to fill the ring, or everything that is young enough, the store is read ([Read]):
//
//	kept ──nobody offers, or all parts──► reading ──all entries──► filled
//
// The ring then has entries of nodes that are dead. Positions name those, so a client from before the
// restart gets what is newer, and is told what is missing, as if they lived.
//
// The store vouches, too: since a time, it has every entry, or has a later one of the same publisher, which names
// the one before it ([History.Restored]). The caller knows that time. It is
// the latest of these: when the store was made; when it was last told that it may lack entries;
// what is older than entries get there; and where it was full, when the oldest one came that is left. Where the
// time is later than a client's position, the client is told that something may be missing.
//
// # What is promised
//
// The caller delivers what Publish, Add and Results.Late give it in the critical section
// of that call, and in another one resumes a client, sends it the entries and subscribes it.
// Then each client gets each entry once, in the order of its publisher but for Late
// ones, or is told (Missing, Results.Lost), with these exceptions:
//
//   - A client that is taken in while it is ahead of the node ([Resumed]) may get some
//     entries twice.
//   - What a node said in its last second before it died, and was lost on its way, is not
//     known to those who have not got it.
//   - When a node begins to keep a topic, what was published within [Options.Slack] before,
//     as far as clocks tell, is delivered when it is found; if it is not found, that is said
//     only when a client was resumed whom it concerns.
//   - An entry that comes after it was said to be lost is kept for others, and not delivered.
//   - What a node said last in a topic, and the store did not take though it took what came before and after on
//     other topics, is not known after a restart of all nodes. Nor is what a node could not give to
//     the store before it died.
//
// Clocks of nodes must agree within Options.Slack.
//
// # Memory
//
// Off the heap, in tables with limits: 40 bytes for an entry, and its data in cells of 28
// bytes that take 32; 100 bytes and its name for a topic, 40 for each of its publishers.
// Messages of 100 bytes take 168 each, of 200 bytes 296 (BenchmarkMemory). A topic that this
// node publishes to takes 44 bytes for its number, kept or not. When there is no room in
// all, a new entry takes that of the oldest ones of its own topic; if there are none it is
// not kept, counted, and missing for those who ask.
package history
