package measure

// Help says what is counted, in a line for people and for metrics.
func (c Counter) Help() string { return counterHelp[c] }

var counterHelp = [Counters]string{
	Connected:    "handshakes that are complete and correct",
	Resumed:      "TLS handshakes that a session ticket shortened",
	Refused:      "connects that the server's machine refused",
	Reset:        "connections that ended before their handshake did",
	TimedOut:     "handshakes that were not complete in time",
	Rejected:     "handshakes that the server answered with an error or wrongly",
	Failed:       "connections that this machine could not make",
	NoPort:       "connections for which this machine had no source port left",
	Skipped:      "source ports that were taken, so that another was used",
	Held:         "turns in which connections were due, but as many as may be were opening already",
	Dropped:      "open connections that ended without a Close frame",
	Closed:       "open connections that the server closed with a Close frame",
	Broken:       "open connections on which the server broke the protocol",
	Stalled:      "open connections whose server did not read",
	Returned:     "connections that were opened again after the server had ended them; they count as connected too",
	RetryFailed:  "tries to open a connection again that failed",
	HalfOpen:     "connections that are open, and whose handshake is never sent",
	HalfEnded:    "such connections that the server has ended",
	Left:         "connections that the generator ended",
	Recalled:     "connections that the generator ended to open them again",
	Finished:     "scripts that came to their end",
	Sent:         "messages published, which all should receive",
	Received:     "such messages received",
	Overheard:    "published messages, received by users that need not receive them",
	Missed:       "messages or answers that did not come before a later one",
	Repeated:     "messages received again, or after a later one",
	Foreign:      "messages that no generator sent and nobody waits for, such as a greeting",
	Strayed:      "messages of another run, and answers to another connection's message",
	Asked:        "messages sent by users that wait for each answer",
	Omitted:      "messages that were not sent when they were due, because their connection still waited for an answer",
	Echoes:       "answers to users that wait for each",
	Flooded:      "messages sent by users that do not wait for answers",
	Answered:     "answers to users that do not wait",
	Abandoned:    "messages unanswered when their connection ended",
	Unanswered:   "messages whose answer did not come in time",
	Mismatched:   "messages that came in an answer's place and are none",
	Told:         "messages sent that nobody should answer",
	DeafReceived: "published messages received by deaf connections, after they began to read again",
	DeafMissed:   "published messages that deaf connections did not receive before a later one",
	DeafEnded:    "deaf connections that ended",
	Vanished:     "open connections of a generator's machine that was lost",
	Pinged:       "Pings sent",
	Ponged:       "Pongs received that answer a Ping",
	Unponged:     "Pings unanswered when their connection ended, or at the end",
	BytesIn:      "bytes received",
	BytesOut:     "bytes sent",
	OutOfRange:   "times that a histogram cannot hold",
}

// Help says what is timed, in a line for people and for metrics.
func (k Kind) Help() string { return kindHelp[k] }

var kindHelp = [Kinds]string{
	Handshake: "from when a connection was meant to begin until it is open, TCP and TLS included",
	TLS:       "TLS's part of handshakes",
	Broadcast: "from when a message was meant to be published to each receiver",
	Echo:      "from when a message was meant to be sent to its answer, for users that wait for it",
	Flood:     "from when a message was meant to be sent to its answer, for users that do not wait",
	Away:      "from a connection's end until it is open again",
	Pong:      "from a Ping to its Pong",
	Lag:       "how late the generator was: from the arrival of data to its read, and from when a message was due to its sending",
}
