// Package presence is who is in a topic, on all nodes of a cluster.
//
// A member is an id in a topic, with data. A user with several connections in a
// topic, on whichever nodes, is one member: it joins with the first and leaves
// with the last. Where its connections brought different data, all nodes show
// that of the lowest node, and of several on one node the last one's.
//
// Messages, results and time go in and out as values: the package knows no
// network, no clock and no goroutine. A node is known by a number that it draws
// when it starts, so a node that was restarted is another node.
//
// # What goes where
//
// Each node owns its members, and says what changes to those who follow the topic;
// a topic that is followed by one node costs the others nothing.
//
//	kind      to      what it says
//	change    topic   a member of mine has come, has other data, or has gone
//	tell      topic   how far I am in this topic, a moment after a change: finds a lost last change.
//	                  With a question, when a node begins to follow: what have you, beyond what I know?
//	want      node    what have you in this topic? I have missed something
//	snapshot  node    all my members in a topic, in parts
//	same      node    you have all of mine already      (answers want)
//	none      node    I have nobody there               (answers want)
//	check     node    these are topics that I follow, and digests of what I know of yours: what differs?
//	checked   node    that was all that differed        (after the snapshots)
//	beat      all     how many changes I have made in all, in the node's heartbeat
//
// All changes of a node have numbers in one series. A change names the one before
// it in its topic, or zero if the node had nobody there before. What a node knows of
// another one's members in a topic is
//
//	                 change that follows, or that begins anew
//	                       ┌───┐
//	                       │   ▼        a change that does not follow, a digest that differs
//	(watch) ──► nothing ──► known ─────────────────────────────► wanting ◄─┐ asks again: 1, 2, 4 s
//	               ▲          ▲  ▲                                  │    └─┘ (changes wait meanwhile)
//	               │ (last    │  └──────────────────────────────────┘
//	               │  leaves) │       snapshot, same or none, as new as the question
//	               └──────────┘
//
// Where nothing is known, a change is believed only if it is newer than everything
// that was ever heard of that node. Older ones, which were late or came twice, make it ask.
// So nobody comes back by a message that was delayed.
//
// # What is lost is found
//
// A change in the middle by the next one; the last one by a tell, a second later; and
// whatever is left by a round of checks. A node makes a round with another one when it
// meets it, when it may have lost something itself ([Presence.Lost]), when the other one
// says in its beat that it may have, and in the background as long as the other one's number
// grows: a round counts when nothing differed in all of it. While nothing changes there
// are no rounds.
//
//	idle ──number grew, or doubt──► part sent ──checked──► next part … ──► idle
//	                                  │  ▲
//	                                  └──┘ nothing came: 2, 4, 8 s
//
// A round lists the topics that a node follows, 8 bytes each, and 16 where it knows members
// of the other. The next part leaves when the last one was answered, so no
// question waits in a queue. Background rounds are paced by [Options.CheckRate].
//
// # Cost
//
// With N nodes and a topic with members on F of them a change of m bytes is sent once and
// received F − 1 times. For comparison: a home node for each topic would add a hop and a
// transfer whenever homes move; telling all nodes would make each receive each change, N/F times as
// much, and keep every member of the cluster. A node that begins to follow costs
// one question (30 bytes and the topic's name) and as many answers as nodes have members there. After a
// partition of 10 nodes with 100,000 topics each, a node sends and receives 9 × 100,000 × 8 bytes =
// 7.2 MB of checks, and the snapshots of what is shared. A background round of that size takes
// two minutes at 64 KiB/s.
//
// # Memory
//
// Off the heap, in tables with limits: 32 bytes for a member and 4 for its place in an index,
// id and data in cells of 28 bytes that take 32; 36 bytes and the name for a topic, 32 for each
// node with members in a topic. So a member with an id of 36 bytes and 100 of data takes 196
// bytes, its topic and node at most 132 more (BenchmarkMemory). Own members beyond a limit are refused
// with an error. Other nodes' members may take 7/8 of each limit; what is beyond is counted
// (Stats.Refused), and asked for again when there is room.
package presence
