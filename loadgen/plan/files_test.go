package plan

import (
	"fmt"
	"testing"
)

func TestFilesAreFoundWhereverATemplateNamesThem(t *testing.T) {
	n := 0
	text := func() *Text {
		n++
		parsed, err := ParseText(fmt.Sprintf(`{{line "%d"}} and {{line "all"}}`, n))
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	message := func() Message { return Message{Text: text(), Answer: Answer{Contains: text()}} }
	p := Plan{
		Groups: []Group{{
			URLs: []*Text{text()}, Subprotocols: []*Text{text()}, Headers: []Header{{"X", text()}},
			Script: []Step{{Do: Repeat, Steps: []Step{{Do: Send, Message: message()}}}},
		}},
		Phases: []Phase{{Message: message(), Streams: []Stream{{Message: message()}}}},
	}
	if names := p.FileNames(); len(names) != n+1 || n != 9 {
		t.Errorf("%d templates name %q", n, names)
	}
}
