package cluster

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/seed-134acfd0/lull/internal/percent"
)

// protocol is the version of what nodes say to each other. Nodes of different versions do
// not understand each other.
const protocol = 1

// shards is the number of subjects that personal topics share.
const shards = 512

// subjects are the NATS subjects of a cluster.
type subjects struct {
	personal []string
	nodes    string // hellos, of all versions
	node     string // and a node's ID: hellos to it
	ask      string // questions to all
	to       string // and a node's ID: answers to it
	topic    string // and a topic's token
	kept     string // and a topic's token: its messages once more, for the stream
	gaps     string // what may not be in the stream
	stream   string // its name
	get      string // questions to it
	shard    [shards]string
}

func newSubjects(cluster string, personal []string) *subjects {
	all := "lull." + cluster + "."
	own := all + strconv.Itoa(protocol) + "."
	s := &subjects{personal: personal, nodes: all + "nodes", node: all + "nodes.", ask: own + "ask", to: own + "to.", topic: own + "t."}
	s.kept, s.gaps, s.stream = own+"k.", own+"gaps", "lull_"+cluster+"_"+strconv.Itoa(protocol)
	s.get = "$JS.API.DIRECT.GET." + s.stream
	for i := range s.shard {
		s.shard[i] = own + "s." + strconv.Itoa(i)
	}
	return s
}

// of is a topic's subject, and its shard, or -1 if it has a subject of its own.
func (s *subjects) of(topic string) (subject string, shard int) {
	for _, p := range s.personal {
		if strings.HasPrefix(topic, p) {
			shard := hash(topic) % shards
			return s.shard[shard], int(shard)
		}
	}
	return s.topic + token(topic), -1
}

// suffix is what tells a subject of topics from others of the cluster.
func (s *subjects) suffix(subject string) string { return subject[len(s.topic)-len("t."):] }

// whole is the subject of a suffix.
func (s *subjects) whole(suffix string) string { return s.topic[:len(s.topic)-len("t.")] + suffix }

// token is a topic's name as part of a subject: what NATS does not allow there is %XX.
func token(topic string) string {
	return percent.Encode(topic, func(c byte) bool { return c > ' ' && c < 0x7F && c != '.' && c != '*' && c != '>' && c != '%' })
}

// hash is FNV-1a.
func hash(text string) uint32 {
	h := uint32(2166136261)
	for i := range len(text) {
		h = (h ^ uint32(text[i])) * 16777619
	}
	return h
}

// hex is a node's ID in a subject.
func hex(id uint64) string { return fmt.Sprintf("%016x", id) }
