package sequence

import (
	"fmt"
	"math"
)

// Number is a message's place in what one node says on one subject. The zero Number comes
// before all others.
type Number uint64

func number(series, place uint32) Number { return Number(series)<<32 | Number(place) }

func (n Number) series() uint32 { return uint32(n >> 32) }

func (n Number) place() uint32 { return uint32(n) }

func (n Number) String() string { return fmt.Sprintf("%d.%d", n.series(), n.place()) }

// placeMax is the last place of a series.
const placeMax = math.MaxUint32
