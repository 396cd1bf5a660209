package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"
)

// Each step of the walks in ARCHITECTURE.md names a file and a function in it.
func TestTheWalksNameFunctionsThatExist(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	hops := regexp.MustCompile("(?m)^[0-9]+\\. `([a-z/]+\\.go)` `([A-Za-z.]+)`:").FindAllStringSubmatch(string(text), -1)
	steps := regexp.MustCompile(`(?m)^[0-9]+\. `).FindAll(text, -1)
	if len(hops) != len(steps) || len(hops) < 20 {
		t.Errorf("%d of %d steps name a file and a function", len(hops), len(steps))
	}
	for _, hop := range hops {
		if file, function := hop[1], hop[2]; !functions(t, file)[function] {
			t.Errorf("%s has no %s", file, function)
		}
	}
}

// functions are the functions and methods of a file, as Function or Type.Method.
func functions(t *testing.T, file string) map[string]bool {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Error(err)
		return nil
	}
	names := map[string]bool{}
	for _, d := range parsed.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		name := f.Name.Name
		if f.Recv != nil {
			name = receiver(f.Recv.List[0].Type) + "." + name
		}
		names[name] = true
	}
	return names
}

// receiver is the name of a method's type.
func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return strings.TrimSpace(fmt.Sprint(e))
}
