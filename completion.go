package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	predict "github.com/posener/complete"
	"github.com/willabides/kongplete"
)

type completionCommand struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"The shell: ${enum}."`
}

func (completionCommand) Help() string {
	return `The shell then asks lull itself what can follow, so this does not have to be done again for another version.

Examples:
  lull completion bash | sudo tee /etc/bash_completion.d/lull
  echo 'eval "$(lull completion zsh)"' >>~/.zshrc
  lull completion fish >~/.config/fish/completions/lull.fish`
}

// scripts make a shell call LULL with the line so far in COMP_LINE.
var scripts = map[string]string{
	"bash": "complete -C LULL lull\n",
	"zsh":  "autoload -Uz compinit bashcompinit && compinit && bashcompinit\ncomplete -C LULL lull\n",
	"fish": `function __lull_complete
    set -lx COMP_LINE (commandline -cp)
    set -lx COMP_POINT (string length -- "$COMP_LINE")
    LULL
end
complete -c lull -f -a "(__lull_complete)"
`,
}

func (c completionCommand) Run() error {
	lull, err := os.Executable()
	if err != nil {
		return err
	}
	quoted := "'" + strings.ReplaceAll(lull, "'", `'\''`) + "'"
	_, err = fmt.Print(strings.ReplaceAll(scripts[c.Shell], "LULL", quoted))
	return err
}

// complete answers a shell that asks what can follow, and then ends the process.
func complete(parser *kong.Kong) {
	kongplete.Complete(parser, kongplete.WithPredictor("file", predict.PredictFiles("*")))
}
