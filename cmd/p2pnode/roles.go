package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"p2pnode"
	"p2pnode/exec"
	"p2pnode/exec/door"
	"p2pnode/node"
)

// doorCommand is the door role; exec starts it.
func (a *app) doorCommand() *cobra.Command {
	return a.role("door", func(ctx context.Context, r role) error {
		return door.Run(ctx, door.Config{Dir: r.dir, Listen: r.o.Door, Leash: r.leash, Log: r.o.logger("door", os.Stderr), History: r.history})
	})
}

// nodeCommand is the node role; exec starts it.
func (a *app) nodeCommand() *cobra.Command {
	return a.role("node", func(ctx context.Context, r role) error {
		o := r.o
		metrics := prometheus.NewRegistry()
		metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
		n, err := node.New(node.Config{
			Dir: r.dir, Name: o.Name, Version: versionDoc().Version, Built: built(), Labels: o.Label,
			Listen: o.Listen, Door: o.Door, Advertise: o.Advertise, Join: o.Join,
			TokenFile: o.TokenFile, DenyLinks: o.DenyLink, Manager: o.Manager, Ephemeral: o.ephemeralFor(),
			Log: o.logger("node", os.Stderr), History: r.history, Metrics: metrics, Gatherer: metrics, MetricsListen: o.Metrics,
		}, node.Env{MDNS: true})
		if err != nil {
			return err
		}
		return n.Run(ctx)
	})
}

// role is what door and node have in common.
type role struct {
	o       *options
	dir     string
	leash   *os.File
	history *p2pnode.History
}

// role makes a hidden command that runs until SIGTERM, until its leash closes,
// or until it fails. Beside its work it guards exec: whoever is left starts it
// again.
func (a *app) role(name string, run func(context.Context, role) error) *cobra.Command {
	o := &options{}
	cmd := &cobra.Command{
		Use: name, Hidden: true, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			nameProcess("p2pnode-" + name)
			dir, err := dataDir(a.data)
			if err != nil {
				return err
			}
			leash, err := openLeash(o.Leash)
			if err != nil {
				return err
			}
			history, err := p2pnode.OpenHistory(o.History, o.Name, name)
			if err != nil {
				return fmt.Errorf("cannot open --history: %w", err)
			}
			defer history.Close()
			ctx, stop := roleSignals(leash)
			defer stop()
			group, ctx := errgroup.WithContext(ctx)
			group.Go(func() error { return exec.Guard(ctx, dir, leash, o.logger(name, os.Stderr)) })
			group.Go(func() error {
				err := run(ctx, role{o: o, dir: dir, leash: leash, history: history})
				if err == nil {
					err = errRoleEnded // so that the guard ends too
				}
				return err
			})
			err = group.Wait()
			if errors.Is(err, errRoleEnded) || errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	o.addFlags(cmd.Flags())
	return cmd
}

var errRoleEnded = errors.New("ended in order")

// roleSignals ends a role on SIGTERM. Ctrl-C and the terminal's end are exec's to
// handle: it stops its roles in order.
func roleSignals(leash *os.File) (context.Context, func()) {
	ctx, cancel := leashed(context.Background(), leash)
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case s := <-signals:
				if s == syscall.SIGTERM {
					cancel()
				}
			}
		}
	}()
	return ctx, func() {
		cancel()
		signal.Stop(signals)
	}
}
