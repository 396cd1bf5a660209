package deploy

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/tryfunc"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"
	ctyjson "github.com/zclconf/go-cty/cty/json"
	"go.yaml.in/yaml/v2"
)

// module holds the declarations in the files in terraform, by the names that refer
// to them.
type module struct {
	defaults map[string]cty.Value        // var.*, of those that have one
	locals   map[string]hcl.Expression   // local.*
	blocks   map[string]*hclsyntax.Block // data.TYPE.NAME, TYPE.NAME, var.NAME, output.NAME
	used     map[string]hcl.Range        // everything that is referred to
}

// readModule reads the parts of the module that need no provider.
func readModule(t *testing.T) *module {
	t.Helper()
	m := &module{map[string]cty.Value{}, map[string]hcl.Expression{}, map[string]*hclsyntax.Block{}, map[string]hcl.Range{}}
	files, err := filepath.Glob("terraform/*.tf")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files, %v", err)
	}
	for _, path := range files {
		file, diags := hclsyntax.ParseConfig([]byte(read(t, path)), path, hcl.InitialPos)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		body := file.Body.(*hclsyntax.Body)
		m.use(body)
		for _, b := range body.Blocks {
			switch b.Type {
			case "locals":
				for name, a := range b.Body.Attributes {
					m.locals[name] = a.Expr
				}
			case "resource":
				m.blocks[strings.Join(b.Labels, ".")] = b
			case "variable":
				m.blocks["var."+b.Labels[0]] = b
				if a := b.Body.Attributes["default"]; a != nil {
					value, diags := a.Expr.Value(nil)
					if diags.HasErrors() {
						t.Error(diags)
					}
					m.defaults[b.Labels[0]] = value
				}
			default:
				m.blocks[strings.Join(append([]string{b.Type}, b.Labels...), ".")] = b
			}
		}
	}
	return m
}

// use notes what a body refers to.
func (m *module) use(body *hclsyntax.Body) {
	for _, a := range body.Attributes {
		for _, v := range a.Expr.Variables() {
			names := 2
			if v.RootName() == "data" {
				names = 3
			}
			var parts []string
			for _, step := range v[:min(names, len(v))] {
				switch step := step.(type) {
				case hcl.TraverseRoot:
					parts = append(parts, step.Name)
				case hcl.TraverseAttr:
					parts = append(parts, step.Name)
				}
			}
			m.used[strings.Join(parts, ".")] = v.SourceRange()
		}
	}
	for _, b := range body.Blocks {
		m.use(b.Body)
	}
}

func TestTerraformDeclaresWhatItUsesAndUsesWhatItDeclares(t *testing.T) {
	m := readModule(t)
	for name, at := range m.used {
		_, block := m.blocks[name]
		_, local := m.locals[strings.TrimPrefix(name, "local.")]
		kind, _, _ := strings.Cut(name, ".")
		ok := block || kind == "local" && local || name == "path.module" || name == "count.index" ||
			!strings.Contains(name, ".") // a type, as in type = string
		if !ok {
			t.Errorf("%s: nothing declares %s", at, name)
		}
	}
	for name := range m.blocks {
		if _, ok := m.used[name]; !ok && strings.HasPrefix(name, "var.") {
			t.Errorf("nothing uses %s", name)
		}
	}
	for name := range m.locals {
		if _, ok := m.used["local."+name]; !ok {
			t.Errorf("nothing uses local.%s", name)
		}
	}
}

// functions are the functions of Terraform that the module calls.
var functions = map[string]function.Function{
	"can": tryfunc.CanFunc, "ceil": stdlib.CeilFunc, "coalesce": stdlib.CoalesceFunc, "concat": stdlib.ConcatFunc,
	"contains": stdlib.ContainsFunc, "flatten": stdlib.FlattenFunc, "floor": stdlib.FloorFunc, "join": stdlib.JoinFunc,
	"max": stdlib.MaxFunc, "merge": stdlib.MergeFunc, "range": stdlib.RangeFunc, "slice": stdlib.SliceFunc, "sort": stdlib.SortFunc,
	"cidrhost": call(func(args []cty.Value) (cty.Value, error) {
		prefix, err := netip.ParsePrefix(args[0].AsString())
		if err != nil {
			return cty.NilVal, err
		}
		addr := prefix.Masked().Addr()
		for n, _ := args[1].AsBigFloat().Int64(); n > 0; n-- {
			addr = addr.Next()
		}
		if !prefix.Contains(addr) {
			return cty.NilVal, fmt.Errorf("%s is not in %s", addr, prefix)
		}
		return cty.StringVal(addr.String()), nil
	}),
	"file": call(func(args []cty.Value) (cty.Value, error) {
		b, err := os.ReadFile(args[0].AsString())
		return cty.StringVal(string(b)), err
	}),
	"yamldecode": call(func(args []cty.Value) (cty.Value, error) {
		var value struct {
			Files []map[string]string `yaml:"write_files" json:"write_files"`
			Run   [][]string          `yaml:"runcmd" json:"runcmd"`
		}
		if err := yaml.UnmarshalStrict([]byte(args[0].AsString()), &value); err != nil {
			return cty.NilVal, err
		}
		b, err := json.Marshal(value)
		if err != nil {
			return cty.NilVal, err
		}
		implied, err := ctyjson.ImpliedType(b)
		if err != nil {
			return cty.NilVal, err
		}
		return ctyjson.Unmarshal(b, implied)
	}),
	// JSON is YAML.
	"yamlencode": call(func(args []cty.Value) (cty.Value, error) {
		b, err := ctyjson.Marshal(args[0], args[0].Type())
		return cty.StringVal(string(b)), err
	}),
}

func call(f func([]cty.Value) (cty.Value, error)) function.Function {
	return function.New(&function.Spec{
		VarParam: &function.Parameter{Type: cty.DynamicPseudoType},
		Type:     function.StaticReturnType(cty.DynamicPseudoType),
		Impl:     func(args []cty.Value, _ cty.Type) (cty.Value, error) { return f(args) },
	})
}

func list(values ...string) cty.Value {
	var l []cty.Value
	for _, v := range values {
		l = append(l, cty.StringVal(v))
	}
	return cty.ListVal(l)
}

// plan evaluates the module's expressions, with values for its variables and for the
// answers of AWS.
func (m *module) plan(t *testing.T, given map[string]cty.Value) *hcl.EvalContext {
	t.Helper()
	variables := maps.Clone(m.defaults)
	maps.Copy(variables, given)
	address := func(ip string) cty.Value { return cty.ObjectVal(map[string]cty.Value{"public_ip": cty.StringVal(ip)}) }
	values := map[string]cty.Value{}
	ctx := &hcl.EvalContext{Functions: functions, Variables: map[string]cty.Value{
		"path":  cty.ObjectVal(map[string]cty.Value{"module": cty.StringVal("terraform")}),
		"count": cty.ObjectVal(map[string]cty.Value{"index": cty.NumberIntVal(0)}),
		"var":   cty.ObjectVal(variables),
		"local": cty.EmptyObjectVal,
		"aws_instance": cty.ObjectVal(map[string]cty.Value{
			"server": address("198.51.100.1"), "generator": cty.TupleVal([]cty.Value{address("198.51.100.2")}),
		}),
		"data": cty.ObjectVal(map[string]cty.Value{
			"aws_ec2_instance_type": cty.ObjectVal(map[string]cty.Value{"this": cty.ObjectVal(map[string]cty.Value{
				"supported_architectures": list("i386", "x86_64"), "maximum_ipv4_addresses_per_interface": cty.NumberIntVal(15),
			})}),
			"aws_ec2_instance_type_offerings": cty.ObjectVal(map[string]cty.Value{"this": cty.ObjectVal(map[string]cty.Value{
				"locations": list("us-east-1d", "us-east-1a"),
			})}),
			"aws_ami": cty.ObjectVal(map[string]cty.Value{"debian": cty.ObjectVal(map[string]cty.Value{"id": cty.StringVal("ami-1")})}),
		}),
	}}
	for range m.locals { // in each round more of them can be evaluated
		for name, expr := range m.locals {
			if value, diags := expr.Value(ctx); !diags.HasErrors() {
				values[name] = value
			}
		}
		ctx.Variables["local"] = cty.ObjectVal(values)
	}
	for name, expr := range m.locals {
		if _, ok := values[name]; !ok {
			_, diags := expr.Value(ctx)
			t.Errorf("local.%s: %v", name, diags)
		}
	}
	return ctx
}

// text evaluates an attribute.
func (m *module) text(t *testing.T, ctx *hcl.EvalContext, block, attribute string) string {
	t.Helper()
	value, diags := m.blocks[block].Body.Attributes[attribute].Expr.Value(ctx)
	if diags.HasErrors() {
		t.Fatalf("%s.%s: %v", block, attribute, diags)
	}
	value, err := convert.Convert(value, cty.String)
	if err != nil {
		t.Fatalf("%s.%s: %v", block, attribute, err)
	}
	return value.AsString()
}

func TestTerraformGivesTheMachinesTheirFlags(t *testing.T) {
	m := readModule(t)
	ctx := m.plan(t, nil)
	for block, want := range map[string]struct{ path, text string }{
		"aws_instance.server": {"/etc/default/lull",
			`LULL_SERVE="--listen=0.0.0.0:8080,0.0.0.0:8081,0.0.0.0:8082,0.0.0.0:8083 --max-conns=1000100 --status=1m"`},
		"aws_instance.generator": {"/etc/default/lull-load",
			`LULL_LOAD="--url=ws://10.134.0.10:8080/,ws://10.134.0.10:8081/,ws://10.134.0.10:8082/,ws://10.134.0.10:8083/` +
				` --sources=10.134.0.64-10.134.0.78 --conns=1000000 --rate=10000 --hold=30s --broadcasts=5"`},
	} {
		data := m.text(t, ctx, block, "user_data")
		if len(data) > userDataMax {
			t.Errorf("the user data of %s has %d bytes, EC2 takes %d", block, len(data), userDataMax)
		}
		var cloud struct {
			Files []struct{ Path, Content string } `yaml:"write_files"`
		}
		if err := yaml.Unmarshal([]byte(data), &cloud); err != nil || !strings.HasPrefix(data, "#cloud-config\n") {
			t.Fatalf("%v\n%s", err, data)
		}
		const common = 3 // what ../cloud-init has: sysctls, the unit, GRUB's drop-in
		flags, more := cloud.Files[common], cloud.Files[common+1:]
		if flags.Path != want.path || flags.Content != want.text+"\n" {
			t.Errorf("%s gets %s:\n%s", block, flags.Path, flags.Content)
		}
		if block == "aws_instance.server" {
			if len(more) > 0 {
				t.Errorf("the server gets %v", more)
			}
			continue
		}
		if len(more) != 1 || filepath.Dir(more[0].Path) != "/var/lib/cloud/scripts/per-boot" || strings.Count(more[0].Content, "ip address add 10.134.0.") != 15 {
			t.Errorf("the generator gets %v", more)
		}
	}
	var seconds []string
	ips, _ := m.blocks["aws_instance.generator"].Body.Attributes["secondary_private_ips"].Expr.Value(ctx)
	for _, ip := range ips.AsValueSlice() {
		seconds = append(seconds, ip.AsString())
	}
	if len(seconds) != 14 || seconds[0] != "10.134.0.65" || seconds[13] != "10.134.0.78" {
		t.Errorf("the generator's other addresses are %v", seconds)
	}
	for _, name := range slices.Sorted(maps.Keys(m.blocks)) {
		if strings.HasPrefix(name, "output.") {
			if value, diags := m.blocks[name].Body.Attributes["value"].Expr.Value(ctx); diags.HasErrors() {
				t.Errorf("%s: %v", name, diags)
			} else {
				t.Logf("%s = %#v", name, value)
			}
		}
	}
}

// Impossible values are refused before anything is created that costs money.
func TestTerraformRefusesWhatCannotWork(t *testing.T) {
	m := readModule(t)
	holds := func(ctx *hcl.EvalContext) bool {
		all := true
		for _, b := range m.blocks["aws_instance.generator"].Body.Blocks {
			for _, p := range b.Body.Blocks {
				if p.Type != "precondition" {
					continue
				}
				value, diags := p.Body.Attributes["condition"].Expr.Value(ctx)
				if diags.HasErrors() {
					t.Fatal(diags)
				}
				all = all && value.True()
			}
		}
		return all
	}
	number := func(n int64) cty.Value { return cty.NumberIntVal(n) }
	for _, row := range []struct {
		given map[string]cty.Value
		ok    bool
	}{
		{nil, true},
		{map[string]cty.Value{"ports": number(1), "connections": number(256_000)}, true},
		{map[string]cty.Value{"ports": number(1)}, false}, // 967,680
		{map[string]cty.Value{"ports": number(1), "generators": number(2)}, true},
		{map[string]cty.Value{"addresses": number(16)}, false}, // more than an m4.xlarge has
		{map[string]cty.Value{"connections": number(4_000_000)}, false},
	} {
		if ok := holds(m.plan(t, row.given)); ok != row.ok {
			t.Errorf("%v: %v", row.given, ok)
		}
	}
	condition := m.blocks["var.admin_cidr"].Body.Blocks[0].Body.Attributes["condition"].Expr
	for cidr, want := range map[string]bool{"203.0.113.7/32": true, "0.0.0.0/0": false, "me": false} {
		value, diags := condition.Value(m.plan(t, map[string]cty.Value{"admin_cidr": cty.StringVal(cidr)}))
		if diags.HasErrors() || value.True() != want {
			t.Errorf("%s: %v, %v", cidr, value.GoString(), diags)
		}
	}
}
