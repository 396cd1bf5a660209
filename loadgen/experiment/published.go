package experiment

// PublishedRun is a run that others have published.
type PublishedRun struct {
	What        string
	Connections int
	Bytes       int64 // of memory, for all connections together
	Hardware    string
	Note        string
}

// PerConnection is the memory of one connection, in bytes.
func (p PublishedRun) PerConnection() int { return int(p.Bytes) / p.Connections }

// PublishedRuns are the best known ones.
var PublishedRuns = []PublishedRun{
	{
		What: "Haskell websockets, 256 k", Connections: 256_000, Bytes: 4_700_000_000,
		Hardware: "EC2 m4.xlarge, 4 cores, 16 GB",
		Note:     "the generator (tsung) ran on a second one",
	},
	{
		What: "Haskell websockets, 500 k", Connections: 500_000, Bytes: 9_400_000_000,
		Hardware: "EC2 m4.xlarge, 4 cores, 16 GB",
		Note:     "then the generator died",
	},
	{
		What: "Phoenix channels, 2 M", Connections: 2_000_000, Bytes: 83_800_000_000,
		Hardware: "Rackspace OnMetal, 40 cores, 128 GB",
		Note:     "45 generators",
	},
}
