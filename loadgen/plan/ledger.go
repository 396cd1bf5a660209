package plan

// ledger is whose users are taken already: connected by a ramp, or talking in a stream.
// Where groups overlap it is not known whose users an entry took. Then only what is
// certain counts against a later one.
type ledger []claim

// claim is how many users of groups an entry takes; 0 is all that are left.
type claim struct {
	groups mask
	users  int
}

// take enters a claim if there can be so many users left.
func (c *checker) take(f *finder, l *ledger, wanted claim) error {
	rest := wanted.groups
	for _, e := range *l {
		if e.users == 0 {
			rest &^= e.groups
		}
	}
	left := c.users(rest)
	for _, e := range *l {
		if e.users > 0 && e.groups&^rest == 0 {
			left -= e.users
		}
	}
	switch {
	case rest == 0 || left <= 0 && c.users(rest) > 0:
		return f.fault("", "all users of its groups are taken by phases or streams before it")
	case wanted.users > left:
		return f.fault("users", "is %s: %s are left for it", Thousands(wanted.users), Thousands(left))
	}
	*l = append(*l, wanted)
	return nil
}
