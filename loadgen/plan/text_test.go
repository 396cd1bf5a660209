package plan

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

func fill(t *testing.T, raw string, v Values) string {
	t.Helper()
	text, err := ParseText(raw)
	if err != nil {
		t.Fatal(err)
	}
	v.Random = rand.New(rand.NewPCG(1, 2))
	return string(text.Append(nil, &v))
}

func TestTemplatesAreFilledIn(t *testing.T) {
	files := map[string][]string{"a b.txt": {"anna", "ben", "carl"}, "a  b.txt": {"dora"}}
	for raw, want := range map[string]string{
		"":                                  `^$`,
		"plain":                             `^plain$`,
		`{"user":{{.Conn}},"n":{{ .Seq }}}`: `^{"user":7,"n":3}$`,
		"{{.Group}}/{{.Conn}}":              `^idle/7$`,
		"room/{{.Room}}":                    `^room/5$`,
		"{{random -1 1}}":                   `^(-1|0|1)$`,
		"{{random 5 5}}":                    `^5$`,
		"{{hex 12}}":                        `^[0-9a-f]{12}$`,
		"{{uuid}}":                          `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`,
		`{{line "a b.txt"}}`:                `^ben$`,
		"}} alone":                          `^}} alone$`,
		`{{line "a  b.txt"}}`:               `^dora$`,
		`{"in":{"a":{{.Conn}}}}`:            `^{"in":{"a":7}}$`,
		`{{ hex	2 }}`:                       `^[0-9a-f]{2}$`,
		`{{base64 "user{{.Conn}}:a}}b"}}`:   `^dXNlcjc6YX19Yg==$`,
		"{{base64 `{{line \"a b.txt\"}}`}}": `^YmVu$`,
		`{{base64 ""}}`:                     `^$`,
		"{{random 0 9223372036854775807}}":  `^[0-9]+$`,
	} {
		if got := fill(t, raw, Values{Conn: 7, Seq: 3, Room: 5, Group: "idle", Files: files}); !regexp.MustCompile(want).MatchString(got) {
			t.Errorf("%s gives %q", raw, got)
		}
	}
}

func TestWrongTemplatesAreRefused(t *testing.T) {
	for raw, want := range map[string]string{
		"{{":             "without }}",
		"{{}}":           "it can have",
		"{{.Name}}":      "it can have",
		"{{.Conn 1}}":    "it can have",
		"{{random 1}}":   "it can have",
		"{{random 2 1}}": "smaller one first",
		"{{random a b}}": "whole numbers",
		"{{random -9223372036854775808 9223372036854775807}}": "whole numbers",
		"{{hex 0}}":                      "digits",
		"{{hex 9999999}}":                "digits",
		"{{line}}":                       "it can have",
		"{{line names.txt}}":             "in quotes",
		`{{line ""}}`:                    "in quotes",
		`{{line "a" "b"}}`:               "it can have",
		`{{line "a}}`:                    "in quotes",
		`{{}`:                            "without }}",
		`{{.Conn`:                        "without }}",
		`{{base64 x}}`:                   "in quotes",
		`{{base64 "{{x}}"}}`:             "it can have",
		`{{base64 "{{base64 \"x\"}}"}}`:  "within another",
		"\xff":                           "UTF-8",
		"{{hex 1000000}}{{hex 1000000}}": "makes at most",
		strings.Repeat("a{{uuid}}", textPartsMax): "parts",
		strings.Repeat("x", TextMax+1):            "bytes",
	} {
		if _, err := ParseText(raw); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v", raw, err)
		}
	}
}

func TestEscapingChangesOnlyWhatIsConstant(t *testing.T) {
	got, err := text("a b{{.Conn}} {{line \"c d\"}}").Escape(url.QueryEscape)
	if err != nil || got.String() != "a+b{{.Conn}}+{{line \"c d\"}}" {
		t.Errorf("%v, %v", got, err)
	}
}

// What a template makes is never longer than is known beforehand.
func TestTheLengthOfATemplateIsKnown(t *testing.T) {
	v := Values{Conn: math.MaxInt64, Seq: math.MaxInt64, Group: strings.Repeat("g", NameMax), Random: rand.New(rand.NewPCG(1, 2)), Files: map[string][]string{"f": {"longer"}}}
	for _, raw := range []string{"x{{.Conn}}", "{{.Seq}}", "{{.Group}}", "{{.Room}}", "{{hex 9}}", "{{uuid}}", `{{line "f"}}`, "{{random -9223372036854775808 -9223372036854775807}}", `{{base64 "a{{uuid}}"}}`} {
		if n, most := len(text(raw).Append(nil, &v)), text(raw).lengthMax(map[string]int{"f": 6}); n > most {
			t.Errorf("%s makes %d bytes, more than %d", raw, n, most)
		}
	}
}

func TestPlainTextIsNoTemplate(t *testing.T) {
	p := Plain("{{.Conn}}")
	if got := string(p.Append(nil, &Values{})); got != "{{.Conn}}" || !p.Constant() {
		t.Errorf("%q", got)
	}
}

func TestAPlanSurvivesJSON(t *testing.T) {
	url := text("ws://host/{{.Conn}}")
	match, _ := ParsePattern("^ok")
	p := Plan{Groups: []Group{{Name: "a", Users: 3, URLs: []*Text{url}, Script: []Step{
		{Do: Send, Message: Message{Text: url, Answer: Answer{Kind: AnswerMatch, Match: match}}},
	}}}}
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var got Plan
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	again, _ := json.Marshal(got)
	if string(again) != string(b) || !got.Groups[0].Script[0].Message.Answer.Match.MatchString("ok then") {
		t.Errorf("%s became %s", b, again)
	}
	if err := json.Unmarshal([]byte(strings.Replace(string(b), ".Conn", ".Nobody", 1)), &got); err == nil {
		t.Error("a wrong template was taken")
	}
}

func FuzzText(f *testing.F) {
	for _, raw := range []string{"{{.Conn}}", `{{line "x"}}`, "{{random 1 2}}", "{{uuid}}{{hex 3}}", "{{", "{{base64 `{{line \"x\"}}`}}"} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		text, err := ParseText(raw)
		if err != nil {
			return
		}
		if n := len(text.Append(nil, &Values{Random: rand.New(rand.NewPCG(1, 2))})); n > TextMax {
			t.Errorf("%q makes %d bytes", raw, n)
		}
		if text.String() != raw {
			t.Errorf("%q is written %q", raw, text)
		}
	})
}
