package slab

// Uint24Max is the largest number that a Uint24 can be.
const Uint24Max = 1<<24 - 1

// Uint24 is a number in three bytes, for records of which there are many. The fields
// of a record that has no others lie without gaps.
type Uint24 [3]byte

// ToUint24 is the low 24 bits of n.
func ToUint24(n uint32) Uint24 { return Uint24{byte(n), byte(n >> 8), byte(n >> 16)} }

// Uint32 is the number.
func (u Uint24) Uint32() uint32 { return uint32(u[0]) | uint32(u[1])<<8 | uint32(u[2])<<16 }
