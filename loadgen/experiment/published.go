package experiment

// Mark is a run that others have published.
type Mark struct {
	What        string
	Connections int
	Bytes       int64 // of memory, all told
	Hardware    string
	Note        string
}

// PerConnection is the memory of one connection, in bytes.
func (m Mark) PerConnection() int { return int(m.Bytes) / m.Connections }

// Marks are the famous ones.
var Marks = []Mark{
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
