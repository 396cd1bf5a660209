package experiment

// PublishedRun is a run that others have published.
type PublishedRun struct {
	What        string
	Connections int
	Bytes       int64 // of memory, for all connections together
	Of          Measured
	Hardware    string
	Note        string
}

// Measured is what a figure of memory includes.
type Measured string

// What the figures include. Those of different kinds cannot be compared.
const (
	ServerProcess Measured = "the server process, without the kernel"
	WholeMachine  Measured = "the whole machine: the server process, the kernel and everything else"
)

// PerConnection is the memory of one connection, in bytes.
func (p PublishedRun) PerConnection() int { return int(p.Bytes) / p.Connections }

// PublishedRuns are the best known ones.
//
// The Haskell server's figures are the column RES of top, in GiB, from
// https://github.com/WeAreWizards/haskell-websockets-tsung-benchmark (blog.md).
// Phoenix's is the memory that htop showed for the machine, from
// https://phoenixframework.org/blog/the-road-to-2-million-websocket-connections.
var PublishedRuns = []PublishedRun{
	{
		What: "Haskell websockets, 256 k", Connections: 256_000, Bytes: 4714 << 30 / 1000, Of: ServerProcess,
		Hardware: "EC2 m4.xlarge, 4 cores, 16 GB",
		Note:     "the generator (tsung) ran on a second one",
	},
	{
		What: "Haskell websockets, 500 k", Connections: 500_000, Bytes: 9395 << 30 / 1000, Of: ServerProcess,
		Hardware: "EC2 m4.xlarge, 4 cores, 16 GB",
		Note:     "then the generator died",
	},
	{
		What: "Phoenix channels, 2 M", Connections: 2_000_000, Bytes: 83_800_000_000, Of: WholeMachine,
		Hardware: "Rackspace OnMetal, 40 cores, 128 GB",
		Note:     "45 generators",
	},
}
