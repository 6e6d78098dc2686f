package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) completionCommand() *cobra.Command {
	shells := []string{"bash", "zsh", "fish", "powershell"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|powershell",
		Short: "Print a completion script for a shell",
		Long: `Completion prints a script that teaches a shell to complete commands, flags,
image names and sandbox IDs.

Exit status: 0, or 2 for a shell that is not known.`,
		Example: `  source <(cutout completion bash)
  cutout completion zsh > "${fpath[1]}/_cutout"
  cutout completion fish > ~/.config/fish/completions/cutout.fish`,
		ValidArgs: shells,
		Args:      usage(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(a.stdout)
			}
			return usageError{fmt.Errorf("unknown shell %q", args[0])}
		},
	}
}
