package record

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"reflect"
	"slices"
	"testing"
	"unsafe"
)

// both are the two ends of a connection.
func both(suite uint16) (server, client State) {
	secrets := make([]byte, 2*maxSecret)
	rand.Read(secrets)
	size := suites[suite&0xff].secretSize
	a, b := secrets[:size], secrets[maxSecret:][:size]
	return newState(suite, false, a, b), newState(suite, true, a, b)
}

func TestStateIsSmallAndHasNoPointer(t *testing.T) {
	if size := unsafe.Sizeof(State{}); size != StateSize {
		t.Errorf("a State is %d bytes", size)
	}
	var walk func(reflect.Type)
	walk = func(u reflect.Type) {
		switch u.Kind() {
		case reflect.Struct:
			for i := range u.NumField() {
				walk(u.Field(i).Type)
			}
		case reflect.Array:
			walk(u.Elem())
		case reflect.Uint8, reflect.Uint32:
		default:
			t.Errorf("a State holds a %v", u)
		}
	}
	walk(reflect.TypeFor[State]())
}

func TestExpandIsHKDFExpandLabel(t *testing.T) {
	for _, u := range suites[1:] {
		h := func() hash.Hash { return sha256.New() }
		if u.secretSize == sha512.Size384 {
			h = sha512.New384
		}
		secret := make([]byte, u.secretSize)
		rand.Read(secret)
		for label, size := range map[string]int{"key": u.keySize, "iv": ivSize, "traffic upd": u.secretSize} {
			info := binary.BigEndian.AppendUint16(nil, uint16(size))
			info = append(append(info, byte(6+len(label))), "tls13 "+label+"\x00"...)
			want, err := hkdf.Expand(h, secret, string(info), size)
			must(t, err)
			got := make([]byte, size)
			u.expand(got, secret, label)
			if !bytes.Equal(got, want) {
				t.Errorf("%s of %d bytes: %x, not %x", label, size, got, want)
			}
		}
	}
}

func unhex(t *testing.T, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	must(t, err)
	return b
}

// RFC 8448 section 3, from the application keys on.
func TestRFC8448(t *testing.T) {
	client := unhex(t, "9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
	server := unhex(t, "a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")
	var k keys
	k.derive(suites[1], client)
	if want := unhex(t, "5b78923dee08579033e523d9"); !bytes.Equal(k.iv[:], want) {
		t.Errorf("the client's IV is %x", k.iv)
	}
	var key [16]byte
	suites[1].expand(key[:], server, "key")
	if want := unhex(t, "9f02283b6c9c07efc26bb9f2ac92e356"); !bytes.Equal(key[:], want) {
		t.Errorf("the server's key is %x", key)
	}

	data := make([]byte, 50)
	for i := range data {
		data[i] = byte(i)
	}
	s, c := newState(0x1301, false, client, server), newState(0x1301, true, client, server)
	s.write.seq, c.read.seq = 1, 1 // behind the session ticket
	layer := NewLayer(4)
	for _, end := range []struct {
		name       string
		from, to   *State
		data, last string
	}{
		{"client", &c, &s, "1703030043a23f7054b62c94d0affafe8228ba55cbefacea42f914aa66bcab3f2b9819a8a5b46b395bd54a9a20441e2b62974e1f5a6292a2977014bd1e3deae63aeebb21694915e4", "1703030013c9872760655666b74d7ff1153efd6db6d0b0e3"},
		{"server", &s, &c, "17030300432e937e11ef4ac740e538ad36005fc4a46932fc3225d05f82aa1b36e30efaf97d90e6dffc602dcb501a59a8fcc49c4bf2e5f0a21c0047c2abf332540dd032e167c2955d", "1703030013b58fd67166ebf599d24720cfbe7efa7a8864a9"},
	} {
		sealed := layer.Seal(0, end.from, nil, data)
		if !bytes.Equal(sealed, unhex(t, end.data)) {
			t.Errorf("the %s's data: %x", end.name, sealed)
		}
		sealed = layer.CloseNotify(0, end.from, sealed)
		if last := sealed[len(sealed)-24:]; !bytes.Equal(last, unhex(t, end.last)) {
			t.Errorf("the %s's alert: %x", end.name, last)
		}
		plain, rest, reply, err := layer.Open(1, end.to, sealed)
		if !bytes.Equal(plain, data) || len(rest) > 0 || reply != nil || err != ErrClosed {
			t.Errorf("opening the %s's: %x, %x, %x, %v", end.name, plain, rest, reply, err)
		}
	}
}

// stream is what a peer may send: data, empty records, padding, key updates.
func stream(l *Layer, s *State) (sealed, data []byte) {
	for i, size := range []int{5, 1, 300} {
		piece := bytes.Repeat([]byte{byte('a' + i)}, size)
		data = append(data, piece...)
		sealed = l.Seal(0, s, sealed, piece)
		sealed = l.record(0, s, sealed, typeApplication)
		sealed = l.record(0, s, sealed, typeAlert, 1, byte(userCanceled))
		sealed = l.update(0, s, sealed, i == 1)
		sealed = l.record(0, s, sealed, typeApplication, 'p', typeApplication, 0, 0)
		data = append(data, 'p', typeApplication, 0, 0)
	}
	return sealed, data
}

func TestRecordsCutAnywhere(t *testing.T) {
	for _, suite := range allSuites {
		server, client := both(suite)
		l := NewLayer(8)
		sealed, data := stream(l, &client)
		for cut := range len(sealed) + 1 {
			s := server
			in := slices.Clone(sealed)
			plain, rest, first, err := l.Open(1, &s, in[:cut:cut])
			must(t, err)
			answered := len(first) > 0
			got := slices.Clone(plain)
			plain, rest, second, err := l.Open(1, &s, append(slices.Clone(rest), in[cut:]...))
			must(t, err)
			if got = append(got, plain...); !bytes.Equal(got, data) || len(rest) > 0 {
				t.Fatalf("cut at %d: %q, and %d bytes are left", cut, got, len(rest))
			}
			if answered == (len(second) > 0) {
				t.Errorf("cut at %d: the key update was answered by %x and %x", cut, first, second)
			}
		}
	}
}

func TestRecordsThatWereTamperedWith(t *testing.T) {
	for _, suite := range allSuites {
		server, client := both(suite)
		l := NewLayer(8)
		sealed := l.Seal(0, &client, nil, []byte("hello"))
		for i := range sealed {
			s, bad := server, slices.Clone(sealed)
			bad[i] ^= 0x40
			plain, rest, reply, err := l.Open(1, &s, bad)
			if len(plain) > 0 {
				t.Errorf("byte %d changed: %q was taken", i, plain)
			}
			// A longer length waits for more.
			if longer := (i == 3 || i == 4) && err == nil && len(rest) == len(sealed); !longer && (err == nil || len(reply) == 0) {
				t.Errorf("byte %d changed: %x, %v", i, reply, err)
			}
		}
		// Nor twice, nor in another order.
		if _, _, _, err := l.Open(1, &server, append(slices.Clone(sealed), sealed...)); err != errMAC {
			t.Errorf("a record again: %v", err)
		}
	}
}

func TestRecordsThatAreRefused(t *testing.T) {
	update, ticket := []byte{keyUpdate, 0, 0, 1, 0}, []byte{newSessionTicket, 0, 0, 2, 9, 9}
	sealed := func(kind uint8, content ...byte) func(*Layer, *State) []byte {
		return func(l *Layer, s *State) []byte { return l.record(0, s, nil, kind, content...) }
	}
	raw := func(b ...byte) func(*Layer, *State) []byte {
		return func(*Layer, *State) []byte { return b }
	}
	again := func(n int, kind uint8, content ...byte) func(*Layer, *State) []byte {
		return func(l *Layer, s *State) (out []byte) {
			for range n {
				out = l.record(0, s, out, kind, content...)
				if kind == typeHandshake && content[0] == keyUpdate {
					s.write.next(suites[s.suite])
				}
			}
			return out
		}
	}
	for name, test := range map[string]struct {
		from string
		bad  func(*Layer, *State) []byte
		want error
	}{
		"change_cipher_spec":            {"client", raw(20, 3, 3, 0, 1, 1), errType},
		"plain alert":                   {"client", raw(21, 3, 3, 0, 2, 2, 40), errType},
		"plain handshake":               {"client", raw(22, 3, 3, 0, 1), errType},
		"long, by its header":           {"client", raw(23, 3, 3, 0x41, 1), errLong},
		"no bytes":                      {"client", raw(23, 3, 3, 0, 0), errMAC},
		"tag alone":                     {"client", raw(append([]byte{23, 3, 3, 0, 16}, make([]byte, 16)...)...), errMAC},
		"long content":                  {"client", sealed(typeApplication, make([]byte, MaxPlain+1)...), errLong},
		"zeros":                         {"client", sealed(0, 0, 0, 0), errNoType},
		"no type":                       {"client", sealed(0), errNoType},
		"unknown type":                  {"client", sealed(24, 1), errContent},
		"inner change_cipher_spec":      {"client", sealed(20, 1), errContent},
		"empty handshake":               {"client", sealed(typeHandshake), errEmpty},
		"empty alert":                   {"client", sealed(typeAlert), errEmpty},
		"long alert":                    {"client", sealed(typeAlert, 1, 0, 0), errAlert},
		"short alert":                   {"client", sealed(typeAlert, 1), errAlert},
		"fatal alert":                   {"client", sealed(typeAlert, 2, 40), &Error{Alert: 40, Received: true}},
		"warning with another meaning":  {"client", sealed(typeAlert, 1, 40), &Error{Alert: 40, Received: true}},
		"close_notify":                  {"client", sealed(typeAlert, 1, 0), ErrClosed},
		"ClientHello":                   {"client", sealed(typeHandshake, 1, 0, 0, 0), errMessage},
		"certificate request":           {"server", sealed(typeHandshake, 13, 0, 0, 0), errMessage},
		"ticket from a client":          {"client", sealed(typeHandshake, ticket...), errMessage},
		"ticket in pieces":              {"server", sealed(typeHandshake, ticket[:5]...), errFragment},
		"ticket":                        {"server", sealed(typeHandshake, append(ticket, ticket...)...), nil},
		"ticket and key update":         {"server", sealed(typeHandshake, append(ticket, update...)...), nil},
		"key update":                    {"client", sealed(typeHandshake, update...), nil},
		"key update in pieces":          {"client", sealed(typeHandshake, update[:3]...), errFragment},
		"key update and more":           {"client", sealed(typeHandshake, append(update, update...)...), errUpdateTail},
		"key update of no kind":         {"client", sealed(typeHandshake, keyUpdate, 0, 0, 1, 2), errUpdate},
		"long key update":               {"client", sealed(typeHandshake, keyUpdate, 0, 0, 2, 0, 0), errUpdateSize},
		"key updates, a few":            {"client", again(maxIdle, typeHandshake, update...), nil},
		"key updates, too many":         {"client", again(maxIdle+1, typeHandshake, update...), errIdle},
		"empty records, too many":       {"client", again(maxIdle+1, typeApplication), errIdle},
		"cancelled alerts, too many":    {"client", again(maxIdle+1, typeAlert, 1, 90), errIdle},
		"session tickets, far too many": {"server", again(maxIdle+1, typeHandshake, ticket...), errIdle},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLayer(8)
			to, from := both(0x1301)
			if test.from == "server" {
				to, from = from, to
			}
			in := l.Seal(0, &from, nil, []byte("before"))
			in = append(in, test.bad(l, &from)...)
			plain, _, reply, err := l.Open(1, &to, in)
			if string(plain) != "before" || !reflect.DeepEqual(err, test.want) {
				t.Fatalf("%q, %v", plain, err)
			}
			// The peer is told which alert it is.
			e, ours := err.(*Error)
			if ours = ours && !e.Received; ours != (len(reply) > 0) {
				t.Fatalf("the reply is %x", reply)
			}
			if ours {
				_, _, _, told := l.Open(0, &from, slices.Clone(reply))
				if want := (&Error{Alert: e.Alert, Received: true}); !reflect.DeepEqual(told, error(want)) {
					t.Errorf("the peer is told %v", told)
				}
			}
		})
	}
}

// Both ends talk across many keys, and one layer serves them and others with few
// ciphers.
func TestKeysAreUpdatedBeforeTheirLimit(t *testing.T) {
	for _, suite := range allSuites {
		l := NewLayer(1)
		l.keyLimit = 3
		var ends [20][2]State
		for i := range ends {
			ends[i][0], ends[i][1] = both(suite)
		}
		for round := range 50 {
			for i := range ends {
				text := fmt.Sprint("message ", round, " of ", i)
				from, to := &ends[i][round%2], &ends[i][1-round%2]
				sealed := l.Seal(uint32(2*i+round%2), from, nil, []byte(text))
				plain, rest, reply, err := l.Open(uint32(2*i+1-round%2), to, sealed)
				if string(plain) != text || len(rest) > 0 || err != nil {
					t.Fatalf("%q: %q, %v", text, plain, err)
				}
				_, _, reply, err = l.Open(uint32(2*i+round%2), from, slices.Clone(reply))
				must(t, err)
				_, _, _, err = l.Open(uint32(2*i+1-round%2), to, slices.Clone(reply))
				must(t, err)
				if from.write.seq > 4 || to.read.seq > 4 {
					t.Fatalf("a key was used %d and %d times", from.write.seq, to.read.seq)
				}
			}
		}
	}
}

// A peer whose key has sealed much is asked for another, once, and may answer
// late.
func TestPeersAreAskedForAKeyUpdate(t *testing.T) {
	server, client := both(0x1303)
	reader, writer := NewLayer(2), NewLayer(2)
	reader.keyLimit = 3
	var asked []byte
	for i := range 10 {
		_, _, reply, err := reader.Open(0, &server, writer.Seal(0, &client, nil, []byte("x")))
		must(t, err)
		if (len(reply) > 0) != (i == 2) {
			t.Errorf("record %d was answered by %x", i, reply)
		}
		asked = append(asked, reply...)
	}
	_, _, answer, err := writer.Open(0, &client, asked)
	must(t, err)
	if _, _, _, err = reader.Open(0, &server, slices.Clone(answer)); err != nil || server.read.seq != 0 || server.flags != 0 {
		t.Errorf("after the answer: %v, %d", err, server.read.seq)
	}
}

func TestOneAnswerForManyUpdates(t *testing.T) {
	server, client := both(0x1302)
	l := NewLayer(8)
	var in []byte
	for range 5 {
		in = l.update(0, &client, in, true)
	}
	_, _, reply, err := l.Open(1, &server, in)
	must(t, err)
	if want := recordExtra + 5; len(reply) != want {
		t.Errorf("the reply has %d bytes, not %d", len(reply), want)
	}
}

// A slot's next connection is not sealed with the last one's key.
func TestAForgottenForget(t *testing.T) {
	l := NewLayer(8)
	for range 3 {
		server, client := both(0x1301)
		plain, _, _, err := l.Open(5, &server, l.Seal(5, &client, nil, []byte("x")))
		if string(plain) != "x" || err != nil {
			t.Fatal(err)
		}
	}
	l.Forget(5)
	for _, set := range l.pool.sets {
		if set != ([ways]pooled{}) {
			t.Error("a cipher is left")
		}
	}
}

func TestTheLeastRecentlyUsedCipherGoes(t *testing.T) {
	p := newPool(ways)
	u := suites[1]
	var d [ways + 1]direction
	for i := range d {
		rand.Read(d[i].secret[:])
	}
	for i := range ways {
		p.get(u, uint32(i), true, &d[i])
	}
	p.get(u, 0, true, &d[0])       // again
	p.get(u, ways, true, &d[ways]) // in the place of 1
	var slots []uint32
	for _, e := range p.sets[0] {
		slots = append(slots, e.slot)
	}
	if !slices.Contains(slots, 0) || slices.Contains(slots, 1) || !slices.Contains(slots, ways) {
		t.Errorf("the pool has %v", slots)
	}
}

func TestTheSteadyStateDoesNotAllocate(t *testing.T) {
	for _, suite := range allSuites {
		server, client := both(suite)
		l := NewLayer(8)
		buf := make([]byte, 0, 1024)
		message := bytes.Repeat([]byte("x"), 100)
		n := testing.AllocsPerRun(100, func() {
			sealed := l.Seal(0, &client, buf, message[:10], message[10:])
			sealed = l.Seal(0, &client, sealed, message)
			if plain, _, _, err := l.Open(1, &server, sealed); len(plain) != 200 || err != nil {
				t.Fatal(len(plain), err)
			}
		})
		if n > 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

// Whatever comes, nothing panics, what is left is short, and the same bytes in
// other pieces mean the same.
func FuzzOpen(f *testing.F) {
	secret := bytes.Repeat([]byte{7}, maxSecret)
	fresh := func(suite uint8, client bool) State {
		u := 1 + suite%3
		return newState(0x1300|uint16(u), client, secret[:suites[u].secretSize], secret[:suites[u].secretSize])
	}
	s := fresh(0, true)
	sealed, _ := stream(NewLayer(8), &s)
	f.Add(sealed, uint8(0), false, uint16(40))
	f.Add([]byte{23, 3, 3, 0, 17}, uint8(1), true, uint16(1))
	f.Add([]byte{typeHandshake, keyUpdate, 0, 0, 1, 1}, uint8(2), true, uint16(0))
	f.Fuzz(func(t *testing.T, in []byte, suite uint8, client bool, cut uint16) {
		l := NewLayer(8)
		// The bytes as they are, and as the content of a record.
		inputs := [][]byte{in}
		if len(in) > 0 && len(in) <= MaxPlain {
			s := fresh(suite, !client)
			inputs = append(inputs, l.record(0, &s, nil, in[0], in[1:]...))
		}
		for _, in := range inputs {
			whole, parts := fresh(suite, client), fresh(suite, client)
			wantPlain, rest, reply, wantErr := l.Open(1, &whole, slices.Clone(in))
			if len(rest) >= MaxRecord && wantErr == nil || len(reply) > recordExtra+5 {
				t.Fatalf("%d bytes are left, %d answered", len(rest), len(reply))
			}
			n := min(int(cut), len(in))
			plain, rest, _, err := l.Open(2, &parts, slices.Clone(in[:n]))
			got := slices.Clone(plain)
			if err == nil {
				plain, _, _, err = l.Open(2, &parts, append(slices.Clone(rest), in[n:]...))
				got = append(got, plain...)
			}
			if !bytes.Equal(got, wantPlain) || !errors.Is(err, wantErr) && !reflect.DeepEqual(err, wantErr) {
				t.Errorf("cut at %d: %q, %v, not %q, %v", n, got, err, wantPlain, wantErr)
			}
		}
	})
}
