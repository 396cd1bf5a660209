// Package agent lets several machines carry out one load. Each runs an agent ([Serve]).
// A coordinator ([Coordinate]) divides a plan among them, and merges what they count
// and time. They meet at a NATS server ([Connect]), which the coordinator can bring
// along ([NewBroker]).
//
//	subject           from → to                  what
//	lull.hello        coordinator → all agents   who is there? Those answer that take part in no run
//	lull.agent.ID     coordinator → agent        requests: what time is it, join, a part of the job;
//	                                             orders, when they change
//	lull.run.RUN      agent → coordinator        a report a second, and at each barrier; its reply has the orders
//
// Reports and orders have the whole state each time, so none is missed if one is lost.
// What was timed since the report before is sent again until the coordinator has
// confirmed it, and has a number by which it is counted once.
//
// An agent of which nothing is heard for five seconds is lost, and stays lost: its
// connections count as gone, and the others go on without it. An agent that does not
// hear of its coordinator ends its part of the run.
//
// Nothing that arrives is executed. A plan is data, is validated by each agent, and its
// hosts must be among those that the agent allows.
package agent
