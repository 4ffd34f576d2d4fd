package main

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"p2pnode/exec"
	"p2pnode/manage"
)

// patienceOfTab is how long a person who pressed Tab waits for a daemon.
const patienceOfTab = time.Second

// addCompletion lets a shell complete the arguments of cmd and its verbs: what its
// Use calls NODE is the name of a member, TARGET and SVC are services of this host or,
// where none is called that, another host and a slash; ID is one of what the command is
// about. FILE is the shell's own business.
func (a *app) addCompletion(cmd *cobra.Command) {
	for _, sub := range cmd.Commands() {
		a.addCompletion(sub)
	}
	_, args, _ := strings.Cut(cmd.Use, " ")
	if cmd.ValidArgsFunction != nil || strings.Contains(args, "FILE") || strings.Contains(args, "--") {
		return
	}
	known, many := func(context.Context, string) []string { return nil }, 1
	targets := false
	switch args {
	case "NODE":
		known = memberNames
	case "A B":
		known, many = memberNames, 2
	case "TARGET":
		known, targets = localNames, true
	case "TARGET...", "[[NODE/]SVC...]":
		known, targets, many = localNames, true, 1<<10
	case "ID", "[ID]":
		known = idsOf(cmd)
	}
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		dir, err := clientDir(a.data)
		if err != nil || len(args) >= many {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), patienceOfTab)
		defer cancel()
		names := known(ctx, dir)
		if targets && begun != "" && !slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, begun) }) {
			return hostsOf(ctx, dir), cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace
		}
		names = slices.DeleteFunc(names, func(name string) bool { return slices.Contains(args, name) })
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// hostsOf are the members, each with the slash that its services follow.
func hostsOf(ctx context.Context, dir string) (names []string) {
	for _, name := range memberNames(ctx, dir) {
		names = append(names, name+"/")
	}
	return names
}

// memberNames are those of the members, as the node process of dir knows them; none
// where it does not answer.
func memberNames(ctx context.Context, dir string) (names []string) {
	c, err := manage.Dial(ctx, dir)
	if err != nil {
		return nil
	}
	defer c.Close()
	doc, err := c.Nodes(ctx)
	if err != nil {
		return nil
	}
	for _, n := range doc.Nodes {
		names = append(names, n.Name)
	}
	return names
}

// localNames are those of this host's services.
func localNames(ctx context.Context, dir string) (names []string) {
	c, err := exec.Dial(ctx, dir, exec.RoleCLI)
	if err != nil {
		return nil
	}
	defer c.Close()
	st, err := c.Status(ctx)
	if err != nil {
		return nil
	}
	for _, s := range st.Services {
		names = append(names, s.Name)
	}
	return names
}

// idsOf are those of what a command shows: agents, incidents or tokens.
func idsOf(cmd *cobra.Command) func(context.Context, string) []string {
	list := map[string]func(context.Context, *manage.Client) ([]string, error){
		"agents": func(ctx context.Context, c *manage.Client) (ids []string, err error) {
			doc, err := c.Agents(ctx)
			for _, x := range doc.Agents {
				ids = append(ids, x.ID)
			}
			return ids, err
		},
		"incidents": func(ctx context.Context, c *manage.Client) (ids []string, err error) {
			doc, err := c.Incidents(ctx)
			for _, x := range doc.Incidents {
				ids = append(ids, x.ID)
			}
			return ids, err
		},
		"token": func(ctx context.Context, c *manage.Client) (ids []string, err error) {
			doc, err := c.Tokens(ctx)
			for _, x := range doc.Tokens {
				ids = append(ids, x.ID)
			}
			return ids, err
		},
	}[cmd.Parent().Name()]
	return func(ctx context.Context, dir string) []string {
		c, err := manage.Dial(ctx, dir)
		if err != nil || list == nil {
			return nil
		}
		defer c.Close()
		ids, _ := list(ctx, c)
		return ids
	}
}
