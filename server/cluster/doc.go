// Package cluster makes several servers one: what is published to a topic on one of them
// reaches its subscribers on all. They meet at NATS servers that run already, or that they
// embed ([Embed]).
//
//	node, err := cluster.Join(ctx, cluster.Options{URL: "nats://10.0.0.1:4222"})
//	…
//	s, err := server.Listen(addresses, handler, server.Options{TopicChanged: node.TopicChanged})
//	…
//	node.Bind(s)
//	defer node.Leave()
//
// Handlers then subscribe and publish by the node ([Node.Subscribe], [Node.Publish],
// [Node.PublishFrom]).
//
// # Subjects
//
// All begin with lull and the cluster's name C, so that clusters do not meet that share a
// broker. Those that depend on the protocol have its version, which is 1.
//
//	subject         from → to             what
//	lull.C.nodes    node → all            hello: a node's name, ID, age and version, every second
//	lull.C.nodes.ID node → one            hello, in answer to that of a node that comes
//	lull.C.1.t.T    node → who follows T  messages to topic T, and tails
//	lull.C.1.s.N    node → who follows N  the same for all personal topics of shard N, 0 to 511
//	lull.C.1.ask    node → all            how far are you on these subjects?
//	lull.C.1.to.ID  node → one            so far, in answer
//	lull.C.1.k.T    node → stream         messages to topic T once more, with Options.Stream
//	lull.C.1.gaps   node → stream         up to now something may be missing
//
// T is the topic's name, in which bytes that NATS does not allow are %XX. A node follows a
// topic's subject from its first subscriber's coming until ten seconds after its last one's
// leaving. So a message reaches the nodes that have subscribers, and no others.
//
// # Envelopes
//
//	0      1           9          17
//	kind   node's ID   number     …
//	m      publisher   place      op · length of the topic · topic · data    a message
//	t e                place                                                a tail, an end
//	q      who asks    question   (length · subject)…                       ask
//	a      who answers question   place…                                    so far
//	p      whose members are told 0, and what package presence says
//	k      publisher   place      op · length of the topic · topic ·                a message that is kept
//	                              its number in the history · that before it ·
//	                              its time · that before it · data
//	h      who says it 0          what package history says
//	g      who says it time                                                 a gap, for the stream
//
// A place is a number of package sequence: each node numbers what it says on each subject.
// Who follows the subject finds gaps by the numbers, a lost last message by the tail, which
// is told when the subject has been quiet for a second, and what came twice or too late. What is
// said to be lost is not delivered any more.
//
// # A subscription is confirmed
//
//	node A        its broker       B's broker         node B
//	  │ subscribe T ─►│── interest in T ─►│               │
//	  │ ask T ───────►│──────────────────►│──────────────►│
//	  │◄──────────────│◄──────────────────│◄───── so far  │
//
// When all living nodes have answered, their brokers know of the subscription, because the
// question came behind it on each way: what they publish from then on arrives, or is missed by its number. The
// answers say where the numbers begin. Questions are about many subjects at once. NATS
// keeps the order on all these ways within a NATS cluster; through its gateways
// (superclusters) the interest may come later than the question.
//
// # Who is in a topic
//
// Each node owns the members that have entered there ([Node.Enter]), and tells of them on the
// topic's subject, to one node on that node's, and a few bytes in its hello: see package
// presence.
//
// # What was published before
//
// Topics for which [Options.History] says so have a ring of their last messages on each node
// that has subscribers, and for a while after. A client that comes back with a position
// ([Node.Resume], [Node.Position]) gets what it has missed. A node that was away itself gets what it has
// missed from others, and delivers it late. So for these topics a loss is said when nobody
// has the message any more: see package history.
//
// # What is there after a restart
//
// With [Options.Stream] these messages are also given to a stream of the broker's JetStream, under a subject of their
// own: on a topic's subject nodes say more than messages, and shards have many topics.
// Nobody waits for that; one message a second is to be answered. When it is not, or a message could not be
// sent, or the broker was away, or a living node has no stream, then the stream is told that it may lack something up to now, as soon as
// it takes that. A node that begins to keep a topic that no other one has reads it from
// the stream: by itself, or of many topics in a small stream by reading the whole stream. Since
// when the stream has everything, see vouched; what that means, see package history.
//
// # What may be away
//
// A publisher never waits for the broker: its messages wait in a queue of bounded size. If
// that is full, publishing is refused; if the broker is away, messages reach the node's own
// subscribers ([ErrAway]), and others find that they are missing.
//
// A node whose broker is away tries to reach it again, after a time that grows to five
// seconds and is random by half. It then subscribes again, at most a thousand subjects at a
// time, the next ones when all nodes have answered about these.
//
// A node that was not heard for six seconds is dead to the others.
//
// # Memory
//
//	what                             at most
//	Options.Queue                    8 MiB by default
//	answers and tails that wait      4 MiB
//	read and not handled yet         2 MiB of NATS' protocol, about 12 MiB in Go
//	a subject that was published to  250 bytes, for 131,072 of the last ten minutes
//	a subject that is followed       about 1,100 bytes here and at the broker, and 24 for each other node
//	members (Options.Present)        see package presence: a million of them, 256 MiB
//	messages (Options.History)       see package history: a million of them, 256 MiB
//	read from the stream (Stream)    2 MiB, and one message for each of 32 topics
//	a node                           about 200 bytes, for 1,000 of the last ten minutes
package cluster
