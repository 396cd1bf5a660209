package tuning

import (
	"fmt"

	"github.com/prometheus/procfs"
)

// Memory is what a process and the kernel use now, in bytes.
type Memory struct {
	Resident int64 // of the process: its RSS
	Slab     int64 // of the kernel, for objects: sockets, files, epoll items …
}

// MemoryOf reads the memory of process pid, and of the kernel as a whole.
func MemoryOf(pid int) (Memory, error) {
	m, err := memoryOf(pid)
	if err != nil {
		return Memory{}, fmt.Errorf("tuning: read the memory of process %d: %w", pid, err)
	}
	return m, nil
}

func memoryOf(pid int) (Memory, error) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return Memory{}, err
	}
	proc, err := fs.Proc(pid)
	if err != nil {
		return Memory{}, err
	}
	stat, err := proc.Stat()
	if err != nil {
		return Memory{}, err
	}
	info, err := fs.Meminfo()
	if err != nil {
		return Memory{}, err
	}
	return Memory{Resident: int64(stat.ResidentMemory()), Slab: number(info.SlabBytes)}, nil
}

// perConnFrom is the number of connections from which on memory is divided by
// it. With fewer, most of what has grown since the start is for other things:
// the runtime, pages of the reactors' buffers, other programs.
const perConnFrom = 5000

// PerConn is how much memory has grown since before, in bytes per connection. If
// it has shrunk, PerConn returns 0. With fewer than 5,000 connections the result
// would say nothing about a connection, and ok is false.
func (m Memory) PerConn(before Memory, conns int64) (user, kernel float64, ok bool) {
	if conns < perConnFrom {
		return 0, 0, false
	}
	per := func(now, then int64) float64 { return float64(max(0, now-then)) / float64(conns) }
	return per(m.Resident, before.Resident), per(m.Slab, before.Slab), true
}
