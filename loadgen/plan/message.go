package plan

func (c *checker) checkMessage(f *finder, m *Message) error {
	switch {
	case m.Text != nil && m.Size != 0:
		return f.fault("size", "is of messages that the generator makes: there is a text already")
	case m.Text != nil:
		if err := c.checkSize(f, "text", m.Text); err != nil {
			return err
		}
	case m.Size != 0:
		if err := f.counts("size", m.Size, SizeMin, SizeMax, " bytes"); err != nil {
			return err
		}
	}
	return c.checkAnswer(f, &m.Answer)
}

func (c *checker) checkAnswer(f *finder, a *Answer) error {
	switch a.Kind {
	case AnswerNone, AnswerEcho, AnswerAny, AnswerContains, AnswerMatch:
	default:
		return f.fault("answer", "is %.40q: it must be echo, any, contains, match, or nothing for none", a.Kind)
	}
	switch {
	case (a.Kind == AnswerMatch) != (a.Match != nil):
		return f.fault("answer", "must have match and a regular expression together")
	case (a.Kind == AnswerContains) != (a.Contains != nil):
		return f.fault("answer", "must have contains and a text together")
	case a.Kind == AnswerNone && a.Within != 0:
		return f.fault("within", "is for messages with an answer")
	case a.Contains != nil && a.Contains.raw == "":
		return f.fault("contains", "must not be empty: any is the answer that can be anything")
	case a.Contains != nil && a.Contains.has(random, hexadecimal, uuid):
		return f.fault("contains", "must not be random: what a user waits for is not remembered")
	case a.Contains != nil:
		if err := c.checkSize(f, "contains", a.Contains); err != nil {
			return err
		}
	}
	return f.optional("within", a.Within, TimeMin, TimeMax)
}
