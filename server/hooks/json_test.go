package hooks

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/seed-134acfd0/lull/frame"
	"github.com/seed-134acfd0/lull/server"
)

// A batch is the JSON that encoding/json writes, but for how it escapes.
func FuzzABatchIsJSON(f *testing.F) {
	f.Add("node-1", "node-2", "Zoë", []byte(`a "text" </script>`+"\x00\x1f\u2028\\\n"), []byte{0, 255})
	f.Add("", "", "\xff", []byte("\xff\xed\xa0\x80"), []byte{})
	f.Fuzz(func(t *testing.T, id, conn, user string, text, binary []byte) {
		type spelled struct {
			ID         string  `json:"id"`
			Connection string  `json:"connection"`
			User       string  `json:"user"`
			Text       *string `json:"text,omitempty"`
			Base64     *[]byte `json:"base64,omitempty"`
		}
		asText := string(text)
		want, err := json.Marshal([]spelled{{id, conn, user, &asText, nil}, {id, conn, user, nil, &binary}})
		if err != nil {
			t.Fatal(err)
		}
		got := batchOf([]*message{
			{id: id, conn: conn, user: user, body: text, delivery: server.Delivery{Op: frame.Text}},
			{id: id, conn: conn, user: user, body: binary, delivery: server.Delivery{Op: frame.Binary}},
		})
		var read, wanted any
		if err := json.Unmarshal(got, &read); err != nil {
			t.Fatalf("%s: %v", got, err)
		}
		if _ = json.Unmarshal(want, &wanted); !reflect.DeepEqual(read, wanted) {
			t.Errorf("%s, not %s", got, want)
		}
	})
}

// What is accepted as an answer to a batch, encoding/json understands in the same way.
func FuzzRepliesAreJSON(f *testing.F) {
	for _, text := range []string{
		`["a", null, {}]`, `["\u00e9\ud83d\ude00\ud800", {"text": "` + "\xff" + `", "topic": "b"}]`, `[{"base64": "AP8="}, {"close": "4001 bye"}]`,
		`[{"subscribe": ["a"], "unsubscribe": null}]`, ` [ ] `, `[1]`, `[{"text": 1}]`, `[{"texts": "a"}]`, `[] []`, `[{"text": "a", "text": "b"}]`,
		`[{"base64": "A\nP8="}]`, `[{"base64": "AP8"}]`, `null`, `{"text": "a"}`, `["a"`, `["a",]`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var elements []json.RawMessage
		if json.Unmarshal(body, &elements) != nil && len(body) > 0 {
			if _, err := repliesOf(body, bytes.Count(body, []byte(","))+1); err == nil {
				t.Fatalf("%q is accepted", body)
			}
			return
		}
		n := len(elements)
		for _, wrong := range []int{n - 1, n + 1} {
			if wrong < 1 || len(body) == 0 {
				continue
			}
			if _, err := repliesOf(body, wrong); err == nil {
				t.Fatalf("%q is accepted as %d replies", body, wrong)
			}
		}
		replies, err := repliesOf(body, n)
		if err != nil {
			return
		}
		for i, e := range elements {
			var r struct {
				Text                   string
				Base64                 []byte
				Topic                  string
				Subscribe, Unsubscribe []string
				Close                  string
			}
			err := json.Unmarshal(e, &r)
			if e[0] == '"' {
				err = json.Unmarshal(e, &r.Text)
			}
			want := reply{r.Subscribe, r.Unsubscribe, r.Topic, contentText, []byte(r.Text), r.Close}
			if len(r.Base64) > 0 {
				want.content, want.body = contentBinary, r.Base64
			}
			if err != nil || !reflect.DeepEqual(replies[i], want) {
				t.Errorf("reply %d of %q is read as %+v, not %+v, %v", i, body, replies[i], want, err)
			}
		}
	})
}
