//go:build !linux

package netpoll

import (
	"errors"
	"net/netip"
	"time"
)

// Available is nil on Linux, and says what to do elsewhere. There programs that
// embed a reactor compile, and nothing here works: what may fail returns this
// error, and the rest does nothing.
func Available() error { return errNotLinux }

var errNotLinux = errors.New("netpoll: this runs on Linux only, because it needs epoll: " +
	"develop in a Linux container or virtual machine, or put another server behind your interface")

// What follows is what package server needs to compile. The Linux files document it.

type Listener struct {
	FD   int
	Addr netip.AddrPort
}

func Listen(string, int) (Listener, error) { return Listener{}, errNotLinux }

type Grant struct{ Listener, Budget int }

type Granted struct {
	Reactor, Listener int
	More              bool
	Err               error
}

type Accepting interface {
	Accept(Grant)
	Load() (used, limit int)
}

type Acceptor struct{}

func NewAcceptor([]Listener, []Accepting, func(int, error)) (*Acceptor, error) {
	return nil, errNotLinux
}

func (*Acceptor) Start() error   { return errNotLinux }
func (*Acceptor) Close() error   { return nil }
func (*Acceptor) Answer(Granted) {}

type Passage struct{}

func NewPassage() (*Passage, error)         { return nil, errNotLinux }
func (*Passage) Inside() int                { return -1 }
func (*Passage) PassIn(int) error           { return errNotLinux }
func (*Passage) TakeIn() (int, error)       { return -1, errNotLinux }
func (*Passage) PassOut(int) error          { return errNotLinux }
func (*Passage) TakeOut() (fd int, e error) { return -1, errNotLinux }
func (*Passage) Close()                     {}

type Interest uint32

const (
	In Interest = 1 << iota
	Out
)

type Event struct{}

func (*Event) Token() Token   { return Token{} }
func (*Event) Writable() bool { return false }
func (*Event) Readable() bool { return false }

type Poller struct{}

func NewPoller(*Waker) (*Poller, error)             { return nil, errNotLinux }
func (*Poller) Add(int, Token, Interest) error      { return errNotLinux }
func (*Poller) Remove(int)                          {}
func (*Poller) Modify(int, Token, Interest) error   { return errNotLinux }
func (*Poller) Wait(time.Duration) ([]Event, error) { return nil, errNotLinux }
func (*Poller) Doze(time.Duration) ([]Event, error) { return nil, errNotLinux }
func (*Poller) Close() error                        { return nil }

type Waker struct{}

func NewWaker() (*Waker, error) { return nil, errNotLinux }
func (*Waker) Wake()            {}
func (*Waker) Rouse()           {}
func (*Waker) Called() bool     { return false }
func (*Waker) Heard()           {}

type Threads struct{}

func NewThreads(Tables, int, ...int) (*Threads, error) { return nil, errNotLinux }
func PrivateTables() error                             { return errNotLinux }
func Processors() int                                  { return 1 }
func Yield()                                           {}
func (*Threads) Private() bool                         { return false }
func (*Threads) Start(func(), ...int) error            { return errNotLinux }

type Table[T any] struct{}

func NewTable[T any](int) (*Table[T], error) { return nil, errNotLinux }
func (*Table[T]) Len() int                   { return 0 }
func (*Table[T]) At(int) *T                  { return nil }
func (*Table[T]) index(*T) int               { return 0 }
func (*Table[T]) Zero()                      {}

func DescriptorLimit() (int, error) { return 0, errNotLinux }
func Reserve(int)                   {}

func Accept(int) (int, bool, error)  { return -1, false, errNotLinux }
func Read(int, []byte) (int, error)  { return 0, errNotLinux }
func Write(int, []byte) (int, error) { return 0, errNotLinux }
func ShutdownWrite(int)              {}
func StopListening(int)              {}
func SetSendBuffer(int, int)         {}
func NoKeepAlive(int)                {}
func Close(int)                      {}
func Reset(int)                      {}
func Unacknowledged(int) int         { return 0 }
func SocketError(int) error          { return errNotLinux }
func RemoteAddr(int) netip.AddrPort  { return netip.AddrPort{} }
