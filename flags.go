package main

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/dustin/go-humanize"

	"github.com/seed-134acfd0/lull/netpoll"
	"github.com/seed-134acfd0/lull/server"
)

// accepts are options that make the error of a wrong value say what is accepted.
// A flag has tags for it:
//
//	range:"1..1024"   the lowest and the highest value; either may be missing
//	example:"4"       a value, for flags whose default says little
//	enum:"a,b"        all values
func accepts() []kong.Option {
	known := kong.NewRegistry().RegisterDefaults()
	number := func(like any, what string) kong.Mapper {
		return bounded(what, known.ForType(reflect.TypeOf(like)))
	}
	return []kong.Option{
		kong.TypeMapper(reflect.TypeFor[int](), number(int(0), "a whole number")),
		kong.TypeMapper(reflect.TypeFor[int64](), number(int64(0), "a whole number")),
		kong.TypeMapper(reflect.TypeFor[float64](), number(float64(0), "a number")),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), number(time.Duration(0), "a time like 500ms, 30s or 1h30m")),
		kong.TypeMapper(reflect.TypeFor[string](), kong.MapperFunc(word)),
		kong.TypeMapper(reflect.TypeFor[netpoll.Tables](), kong.MapperFunc(word)),
		kong.TypeMapper(reflect.TypeFor[server.Mode](), kong.MapperFunc(word)),
		kong.TypeMapper(reflect.TypeFor[server.InboxPolicy](), kong.MapperFunc(word)),
		kong.TypeMapper(reflect.TypeFor[server.OutboxPolicy](), kong.MapperFunc(word)),
	}
}

// word accepts any text, or, where all values are listed, one of them.
func word(ctx *kong.DecodeContext, target reflect.Value) error {
	if ctx.Scan.Peek().IsEOL() {
		return fmt.Errorf("must be followed by a value%s", example(ctx.Value))
	}
	var text string
	if err := ctx.Scan.PopValueInto("text", &text); err != nil {
		return err
	}
	if all := ctx.Value.EnumSlice(); ctx.Value.Enum != "" && !slices.Contains(all, text) {
		return fmt.Errorf("must be one of %s, not %q", strings.Join(all, ", "), text)
	}
	if known, ok := target.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return known.UnmarshalText([]byte(text))
	}
	target.SetString(text)
	return nil
}

// bounded returns a mapper that accepts what inner accepts, if it lies in the
// flag's range.
func bounded(what string, inner kong.Mapper) kong.MapperFunc {
	return func(ctx *kong.DecodeContext, target reflect.Value) error {
		allowed, err := boundsOf(ctx.Value)
		if err != nil {
			return err
		}
		given := ctx.Scan.Peek()
		err = inner.Decode(ctx, target)
		switch {
		case given.IsEOL():
			return fmt.Errorf("must be followed by %s%s%s", what, allowed, example(ctx.Value))
		case err != nil || !allowed.contain(target):
			return fmt.Errorf("must be %s%s, not %q%s", what, allowed, fmt.Sprint(given.Value), example(ctx.Value))
		}
		return nil
	}
}

// bounds are the lowest and the highest value of a flag.
type bounds struct {
	low, high float64
	text      string // " from 1 to 1,024"
}

func (b bounds) String() string { return b.text }

func (b bounds) contain(v reflect.Value) bool {
	var n float64
	if v.CanInt() {
		n = float64(v.Int())
	} else {
		n = v.Float()
	}
	return b.low <= n && n <= b.high // false for what is not a number
}

// boundsOf reads a flag's tag.
func boundsOf(value *kong.Value) (bounds, error) {
	b := bounds{low: math.Inf(-1), high: math.Inf(1)}
	low, high, ok := strings.Cut(value.Tag.Get("range"), "..")
	if !ok {
		return b, nil
	}
	isTime := value.Target.Type() == reflect.TypeFor[time.Duration]()
	for _, bound := range []struct {
		text string
		n    *float64
	}{{low, &b.low}, {high, &b.high}} {
		if bound.text == "" {
			continue
		}
		var err error
		if isTime {
			var d time.Duration
			d, err = time.ParseDuration(bound.text)
			*bound.n = float64(d)
		} else {
			*bound.n, err = strconv.ParseFloat(bound.text, 64)
		}
		if err != nil {
			return b, fmt.Errorf("the range of the flag cannot be read: %w", err)
		}
	}
	write := func(text string, n float64) string {
		if isTime {
			return text
		}
		return humanize.Commaf(n)
	}
	switch {
	case high == "":
		b.text = " of at least " + write(low, b.low)
	default:
		b.text = fmt.Sprintf(" from %s to %s", write(low, b.low), write(high, b.high))
	}
	return b, nil
}

// example is a value of a flag that is accepted.
func example(value *kong.Value) string {
	text := value.Tag.Get("example")
	if text == "" {
		text = value.Default
	}
	if text == "" || value.Flag == nil {
		return ""
	}
	return fmt.Sprintf("; for example %s=%s", value.ShortSummary(), text)
}
