package experiment

import (
	"math"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const mega = 1_000_000

// at is a sample whose figures are in millions of bytes.
func at(seconds float64, open int, server, generator, slab, active, vmalloc int64) Sample {
	return Sample{seconds, open, server * mega, generator * mega, slab * mega, active * mega, vmalloc * mega}
}

// heldRun opens 200,000 connections in four seconds, holds them for ten seconds
// and then broadcasts.
func heldRun() *observer {
	begun := time.Unix(1_000_000, 0)
	return observed(begun,
		[]Sample{
			at(0, 0, 10, 20, 100, 90, 5),
			at(1, 15_000, 12, 23, 220, 210, 5),
			at(2, 60_000, 15, 26, 600, 590, 6),
			at(3, 115_000, 17, 28, 1000, 990, 7),
			at(4.1, 200_000, 20, 31, 1700, 1680, 9),
			at(13.9, 200_000, 19, 30, 1701, 1681, 9), // the last of the hold
			at(14.1, 200_000, 90, 70, 2500, 2400, 9),
			at(19, 200_000, 80, 80, 2400, 2300, 9),
		},
		phaseStart{phase: "ramp", at: begun},
		phaseStart{phase: "hold", at: begun.Add(4 * time.Second)},
		phaseStart{phase: "broadcast", at: begun.Add(14 * time.Second)},
		phaseStart{phase: "end", at: begun.Add(20 * time.Second)})
}

func TestMemoryIsMeasuredWhenAllAreIdle(t *testing.T) {
	want := Memory{
		ServerRSS: 19 * mega, GeneratorRSS: 30 * mega, MeasuredSeconds: 13.9,
		ServerPerConn: 45,   // (19 − 10) MB ÷ 200,000
		GenPerConn:    50,   // (30 − 20) MB ÷ 200,000
		SlabPerConn:   8005, // (1701 − 100) MB ÷ 200,000
		ActivePerConn: 7955, // (1681 − 90) MB ÷ 200,000
		VmallocConn:   20,   // (9 − 5) MB ÷ 200,000
		KernelPerConn: 8005 + 20,
		ServerPeak:    90 * mega, GeneratorPeak: 80 * mega, KernelPeak: (2500 + 9 - 100 - 5) * mega,
	}
	if got := memory(heldRun(), 200_000); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// Where the kernel took back slabs of other things, the objects in use say more.
func TestReclaimedSlabsDoNotHideTheKernelsMemory(t *testing.T) {
	o := heldRun()
	for i := range o.samples {
		o.samples[i].Slab -= int64(o.samples[i].Open) * 1000
	}
	if got := memory(o, 200_000); got.SlabPerConn != 7005 || got.KernelPerConn != 7955+20 {
		t.Errorf("%+v", got)
	}
}

// Without a hold, memory is measured when the last connection was open.
func TestMemoryIsMeasuredWithoutAHold(t *testing.T) {
	begun := time.Unix(1_000_000, 0)
	o := observed(begun,
		[]Sample{at(0, 0, 10, 20, 100, 0, 1), at(0.9, 1000, 11, 22, 108, 0, 1), at(1.1, 1000, 50, 50, 200, 0, 1)},
		phaseStart{phase: "ramp", at: begun}, phaseStart{phase: "broadcast", at: begun.Add(time.Second)}, phaseStart{phase: "end", at: begun.Add(2 * time.Second)})
	got := memory(o, 1000)
	if got.ServerRSS != 11*mega || got.GenPerConn != 2000 || got.KernelPerConn != 8000 || got.MeasuredSeconds != 0.9 || got.ServerPeak != 50*mega {
		t.Errorf("%+v", got)
	}
}

// Memory is divided by the number of open connections, not of wanted ones.
func TestMemoryIsDividedByOpenConnections(t *testing.T) {
	o := heldRun()
	for i := range o.samples {
		o.samples[i].Open /= 2
	}
	if got := memory(o, 200_000); got.ServerPerConn != 90 { // 9 MB ÷ 100,000
		t.Errorf("%+v", got)
	}
}

// line50 are samples of 50 bytes a connection, which differ by noise.
func line50(noise ...int64) []Sample {
	samples := []Sample{{Open: 5_000, Server: 900 * mega}} // too early to count
	for i, n := range noise {
		open := slopeFrom + i*10_000
		samples = append(samples, Sample{Open: open, Server: 10*mega + 50*int64(open) + n})
	}
	return samples
}

func TestTheSlopeIsARegression(t *testing.T) {
	server := func(s Sample) int64 { return s.Server }
	exact := slope(line50(0, 0, 0, 0, 0, 0, 0, 0, 0), server)
	if want := (Slope{Bytes: 50, Samples: 9, From: 15_000, To: 95_000}); exact == nil || *exact != want {
		t.Errorf("%+v, want %+v", exact, want)
	}
	// Two points, the first and the last, would say 50 + 600,000 ÷ 80,000 = 57.5.
	noisy := slope(line50(0, 0, 0, 0, 0, 0, 0, 0, 600_000), server)
	if noisy == nil || math.Abs(noisy.Bytes-54) > 0.1 || noisy.Error < 1 || noisy.Error > 4 {
		t.Errorf("%+v", noisy)
	}
	if got := noisy.String(); !strings.HasSuffix(got, ", 9 samples from 15,000 to 95,000 connections") {
		t.Error(got)
	}
	still := append(line50(0, 0, 0, 0, 0, 0, 0), line50(0, 0, 0, 0, 0, 0, 0)...) // no more connections come
	for why, samples := range map[string][]Sample{
		"few samples": line50(0, 0, 0, 0, 0, 0, 0), "no samples": nil, "few connections came": still,
	} {
		if got := slope(samples, server); got != nil {
			t.Errorf("%s: %+v", why, got)
		}
	}
}

func TestResidentMemoryIsThatOfItsPages(t *testing.T) {
	const size = 64 << 20
	debug.FreeOSMemory() // so that the heap does not shrink meanwhile
	before := resident(os.Getpid())
	pages, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(pages)
	for i := 0; i < size; i += 4096 {
		pages[i] = 1
	}
	if grown := resident(os.Getpid()) - before; grown < size*3/4 || grown > 2*size {
		t.Errorf("%d bytes more, of %d", grown, size)
	}
	if got := resident(1 << 30); got != 0 {
		t.Errorf("a process that does not exist has %d bytes", got)
	}
}

func TestTheKernelsObjectsFitIntoItsSlabs(t *testing.T) {
	k, active := readKernel(), activeObjects()
	if k.slab < 1<<20 || k.vmalloc < 1 || active > k.slab || os.Geteuid() == 0 && active < k.slab/10 {
		t.Errorf("%+v, of which objects have %d", k, active)
	}
}
