package record

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"math/bits"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	maxSecret = sha512.Size384
	maxBlock  = sha512.BlockSize
	ivSize    = 12
	tagSize   = 16
)

// suite is one of TLS 1.3's cipher suites (RFC 8446 appendix B.4).
type suite struct {
	keySize    int
	secretSize int // of the hash, too
	blockSize  int // of the hash
	aead       func(key []byte) (cipher.AEAD, error)
}

// suites is indexed by the low byte of the suite's number.
var suites = [...]*suite{
	1: {16, sha256.Size, sha256.BlockSize, newGCM},
	2: {32, sha512.Size384, sha512.BlockSize, newGCM},
	3: {32, sha256.Size, sha256.BlockSize, chacha20poly1305.New},
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// keys are a direction's, ready for use.
type keys struct {
	aead cipher.AEAD
	iv   [ivSize]byte
}

// derive sets k up for a traffic secret (RFC 8446 section 7.3).
func (k *keys) derive(u *suite, secret []byte) {
	var key [chacha20poly1305.KeySize]byte
	defer clear(key[:])
	u.expand(key[:u.keySize], secret, "key")
	u.expand(k.iv[:], secret, "iv")
	aead, err := u.aead(key[:u.keySize])
	if err != nil {
		panic(err) // the key's size is right
	}
	k.aead = aead
}

// nonce writes the nonce of record seq (RFC 8446 section 5.3).
func (k *keys) nonce(nonce *[ivSize]byte, seq uint32) {
	*nonce = k.iv
	last := nonce[ivSize-4:]
	binary.BigEndian.PutUint32(last, binary.BigEndian.Uint32(last)^seq)
}

// next replaces the secret by the one that follows (RFC 8446 section 7.2).
func (d *direction) next(u *suite) {
	var secret [maxSecret]byte
	u.expand(secret[:u.secretSize], d.secret[:u.secretSize], "traffic upd")
	*d = direction{secret: secret}
	clear(secret[:])
}

// expand is HKDF-Expand-Label (RFC 8446 section 7.1) with an empty context and
// at most the hash's size of output, so that HKDF-Expand (RFC 5869) is a single
// HMAC.
func (u *suite) expand(out, secret []byte, label string) {
	var text, mac [maxSecret]byte
	info := append(text[:0], 0, uint8(len(out)), uint8(len("tls13 ")+len(label)))
	info = append(info, "tls13 "...)
	info = append(info, label...)
	info = append(info, 0, 1) // no context; the first and last block
	u.hmac(&mac, secret, info)
	copy(out, mac[:])
	clear(mac[:])
}

// hmac is HMAC (RFC 2104) of a short text. Unlike crypto/hmac it does not
// allocate, and needs two thirds of the time.
func (u *suite) hmac(mac *[maxSecret]byte, key, text []byte) {
	var buf [maxBlock + maxSecret]byte
	pad, tail := buf[:u.blockSize], buf[u.blockSize:]
	xor(pad, key, 0x36)
	u.hash(mac, buf[:u.blockSize+copy(tail, text)])
	xor(pad, key, 0x5c)
	u.hash(mac, buf[:u.blockSize+copy(tail, mac[:u.secretSize])])
	clear(buf[:])
}

// xor fills pad with the key, and zeros behind it, each xored with b.
func xor(pad, key []byte, b byte) {
	clear(pad[copy(pad, key):])
	for i := range pad {
		pad[i] ^= b
	}
}

func (u *suite) hash(sum *[maxSecret]byte, text []byte) {
	if u.secretSize == sha512.Size384 {
		*sum = sha512.Sum384(text)
		return
	}
	short := sha256.Sum256(text)
	copy(sum[:], short[:])
}

// ways is how many ciphers compete for a place in the pool.
const ways = 8

// pool holds the ciphers of the directions that were used lately. A slot may
// have its ciphers in one set of the pool, where the least recently used gives
// way.
type pool struct {
	sets  [][ways]pooled
	clock uint64
}

type pooled struct {
	keys
	slot  uint32
	write bool
	check uint64 // the first bytes of the secret that the keys are of
	used  uint64 // the pool's clock
}

// newPool makes a pool of at least n ciphers.
func newPool(n int) pool {
	sets := 1 << bits.Len(uint(max(n-1, 0)/ways))
	return pool{sets: make([][ways]pooled, sets)}
}

// get returns the keys of a direction. They are good until the next call. A
// secret that has changed since, a slot's new connection's too, is noticed.
func (p *pool) get(u *suite, slot uint32, write bool, d *direction) *keys {
	p.clock++
	check := binary.LittleEndian.Uint64(d.secret[:])
	set := p.set(slot)
	place := &set[0]
	for i := range set {
		e := &set[i]
		if e.slot == slot && e.write == write && e.aead != nil {
			place = e
			break
		}
		if e.used < place.used {
			place = e
		}
	}
	if place.slot != slot || place.write != write || place.check != check || place.aead == nil {
		*place = pooled{slot: slot, write: write, check: check}
		place.derive(u, d.secret[:u.secretSize])
	}
	place.used = p.clock
	return &place.keys
}

// forget drops a slot's ciphers.
func (p *pool) forget(slot uint32) {
	set := p.set(slot)
	for i := range set {
		if set[i].slot == slot {
			set[i] = pooled{}
		}
	}
}

func (p *pool) set(slot uint32) *[ways]pooled {
	return &p.sets[int(slot)&(len(p.sets)-1)]
}
