package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"p2pnode"
)

// usage is an error in what was typed or configured.
func usage(format string, args ...any) error {
	return &p2pnode.Error{Code: "usage", Text: fmt.Sprintf(format, args...), Exit: p2pnode.ExitUsage}
}

// misused is an error in how cmd was called, with the way it is called.
func misused(cmd *cobra.Command, format string, args ...any) error {
	return &p2pnode.Error{
		Code: "usage", Text: fmt.Sprintf(format, args...), Exit: p2pnode.ExitUsage,
		Fix: "usage: " + cmd.UseLine() + "\nsee: " + cmd.CommandPath() + " --help",
	}
}

// noVerb refuses a word that is no verb, and says which one was meant.
func noVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if near := nearest(args[0], verbsOf(cmd)); near != "" {
		hint = fmt.Sprintf(", did you mean %q?", near)
	}
	fix := "see: p2pnode help"
	if cmd.HasParent() {
		fix = "see: " + cmd.CommandPath() + " --help"
	}
	return &p2pnode.Error{Code: "usage", Text: fmt.Sprintf("unknown command %q%s", args[0], hint), Fix: fix, Exit: p2pnode.ExitUsage}
}

func verbsOf(cmd *cobra.Command) (verbs []string) {
	for _, c := range cmd.Commands() {
		if !c.Hidden {
			verbs = append(verbs, c.Name())
		}
	}
	return verbs
}

// strict makes cmd and all below it answer a wrong call in our words, and a verb
// that wants another verb after it fail rather than print help: a script that
// forgot half of a command must not go on.
func strict(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		strict(sub)
	}
	check := cmd.Args
	switch {
	case cmd.HasSubCommands():
		cmd.Args = noVerb
		if !cmd.Runnable() {
			cmd.RunE = func(cmd *cobra.Command, _ []string) error {
				return &p2pnode.Error{
					Code: "usage", Text: cmd.CommandPath() + " does nothing by itself", Exit: p2pnode.ExitUsage,
					Fix: "say one of: " + strings.Join(verbsOf(cmd), ", ") + "\nsee: " + cmd.CommandPath() + " --help",
				}
			}
		}
	case check != nil:
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			err := check(cmd, args)
			if _, ours := err.(*p2pnode.Error); err == nil || ours {
				return err
			}
			return misused(cmd, "%s %v", cmd.CommandPath(), err)
		}
	}
}
