// Package slab keeps many small things in memory that the garbage collector does
// not know, linked by 32-bit indexes instead of pointers.
//
//	Records   values of one size
//	Bytes     strings of any length, in chains of cells
//	Index     finds records by a hash
//	Uint24    an index, or another number, in three bytes of a record
//
// Each has a limit and reserves address space for it, which costs no memory. Pages
// become resident when they are first used. What was freed is used again before
// new pages are, and the pages of a large table are given back when nothing is left in
// it.
// Index 0 names nothing. Only one goroutine at a time may use a table, and
// nothing here checks whether an index is in use.
package slab
