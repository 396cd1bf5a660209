package scenario

import (
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/seed-134acfd0/lull/loadgen/plan"
)

var groupObject = object[settings]{"group", "Users that are alike.", slices.Concat(
	[]key[settings]{
		is("users", whole(1, plan.UsersMax), func(s *settings) *int { return &s.Users }, "", "How many users it has. Each is a connection."),
	},
	connecting, behaving,
	[]key[settings]{
		is("script", script(), func(s *settings) *[]plan.Step { return &s.Script }, "nothing: they stay connected and receive",
			"What each user does when its connection is open. At its end it stays connected. A connection that comes back begins anew."),
	},
)}

// group reads a group, with the settings that are above all groups.
func (d *decoder) group(name, n *yaml.Node, above settings) (plan.Group, error) {
	at, err := d.enter(n)
	if err != nil {
		return plan.Group{}, err
	}
	s := above
	if half := find(at, "half-open"); half != nil && half.Value == "true" {
		s = settings{query: above.query, Group: plan.Group{URLs: above.URLs, Timeout: above.Timeout}}
	}
	s.Name, s.Line = name.Value, n.Line
	if err := groupObject.decode(d, n, &s); err != nil {
		return plan.Group{}, err
	}
	if s.URLs == nil {
		return plan.Group{}, mistake(name, "group %.40q needs a url, its own or one above the groups: as url: ws://127.0.0.1:8080/", name.Value)
	}
	return s.group(n)
}
