package main

import (
	"fmt"

	"github.com/seed-134acfd0/lull/internal/build"
)

type versionCommand struct{}

func (versionCommand) Help() string {
	return `One line: the version of lull, the commit that it was built from and whether there were changes besides, the version
of Go, and the system. The metric lull_build_info has the same.

Examples:
  lull version`
}

func (versionCommand) Run() error {
	_, err := fmt.Println(versionLine())
	return err
}

// versionLine is what "lull version" and "lull --version" print.
func versionLine() string { return "lull " + build.Read().String() }
