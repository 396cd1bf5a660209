package plan

import "slices"

// FileNames are the names of the files of which templates take lines, each once.
func (p *Plan) FileNames() []string {
	var names []string
	add := func(texts ...*Text) {
		for _, t := range texts {
			if t != nil {
				names = append(names, t.Files()...)
			}
		}
	}
	for i := range p.Groups {
		g := &p.Groups[i]
		add(g.URLs...)
		add(g.Subprotocols...)
		for _, h := range g.Headers {
			add(h.Value)
		}
		addScript(g.Script, add)
	}
	for i := range p.Phases {
		add(p.Phases[i].Message.texts()...)
		for _, s := range p.Phases[i].Streams {
			add(s.Message.texts()...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func addScript(steps []Step, add func(...*Text)) {
	for i := range steps {
		add(steps[i].Message.texts()...)
		addScript(steps[i].Steps, add)
	}
}

// texts are m's templates, some of which may be nil.
func (m *Message) texts() []*Text { return []*Text{m.Text, m.Answer.Contains} }
