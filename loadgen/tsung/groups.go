package tsung

import (
	"cmp"
	"math"
	"slices"
)

// groups adds a group for each session, with all users that arrive for it, and returns the
// names of each arrival's groups. Arrivals for which sessions have other shares have groups of
// their own, because a phase opens users of its groups by their sizes.
func (t *translation) groups(arrivals []arrival, sessions []session) (names [][]string) {
	names = make([][]string, len(arrivals))
	for i := range arrivals {
		if names[i] != nil || arrivals[i].users == 0 {
			continue
		}
		var alike []int
		users := 0
		for j := i; j < len(arrivals); j++ {
			if arrivals[j].users > 0 && slices.Equal(arrivals[j].shares, arrivals[i].shares) {
				alike = append(alike, j)
				users += arrivals[j].users
			}
		}
		mix := t.mix(arrivals[i].shares, users, sessions)
		for _, j := range alike {
			names[j] = mix
		}
	}
	return names
}

// mix adds a group for each session that has a share of the users.
func (t *translation) mix(shares []float64, users int, sessions []session) (names []string) {
	for i, n := range divide(users, shares) {
		if n > 0 {
			names = append(names, t.add(&sessions[i], "", n))
		}
	}
	return names
}

// startGroups adds a group for each session that has users who start at a time of their own.
func (t *translation) startGroups(starts []start, sessions []session) {
	users, names := make([]int, len(sessions)), make([]string, len(sessions))
	for _, s := range starts {
		users[s.session] += s.users
	}
	for i, n := range users {
		if n > 0 {
			names[i] = t.add(&sessions[i], "-start", n)
		}
	}
	for i := range starts {
		starts[i].group = names[starts[i].session]
	}
}

// divide divides n by shares. What rounding leaves goes to those that lost most by it.
func divide(n int, shares []float64) []int {
	total := 0.0
	for _, s := range shares {
		total += s
	}
	parts, order := make([]int, len(shares)), make([]int, len(shares))
	lost := make([]float64, len(shares))
	left := n
	for i, s := range shares {
		exact := float64(n) * s / total
		parts[i] = int(math.Floor(exact))
		lost[i] = exact - float64(parts[i])
		left -= parts[i]
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(lost[b], lost[a]) })
	for _, i := range order[:max(0, min(left, len(order)))] {
		parts[i]++
	}
	return parts
}
