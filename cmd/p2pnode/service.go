package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"p2pnode"
)

// systemd is what install and uninstall need of the init.
type systemd struct {
	unit   string // path of our unit
	booted string // folder that is there where systemd is the init
	call   func(ctx context.Context, args ...string) error
}

func hostSystemd() systemd {
	return systemd{unit: unitPath, booted: "/run/systemd/system", call: func(ctx context.Context, args ...string) error {
		out, err := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("systemctl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
		}
		return nil
	}}
}

func (a *app) serviceCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "service", Short: "Run p2pnode under this host's init"}
	cmd.AddCommand(a.serviceInstall(hostSystemd()), a.serviceUninstall(hostSystemd()))
	return cmd
}

func (a *app) serviceInstall(init systemd) *cobra.Command {
	var config string
	var show, force bool
	cmd := &cobra.Command{
		Use: "install", Short: "Write, enable and start the systemd unit", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, err := a.unitHere(config, show)
			if err != nil {
				return err
			}
			if show {
				_, err := io.WriteString(a.stdout, text)
				return err
			}
			if err := init.usable("systemctl enable --now p2pnode"); err != nil {
				return err
			}
			if o, _, err := loadConfig(config); err != nil {
				return err
			} else if len(o.Services) == 0 {
				fmt.Fprintf(a.stderr, "p2pnode: %s declares no services yet\n", config)
			}
			said, err := init.install(cmd.Context(), text, force)
			if err != nil {
				return err
			}
			return a.done("service-install", init.unit, said+": see p2pnode status, systemctl status p2pnode")
		},
	}
	cmd.Flags().StringVar(&config, "config", unitConfig, "configuration `FILE` that the service starts with")
	cmd.Flags().BoolVar(&show, "print", false, "show the unit, change nothing")
	cmd.Flags().BoolVar(&force, "force", false, "also over a unit that somebody else wrote")
	return cmd
}

// unitHere is the unit for this binary; what is only shown is that of deploy/ where
// nothing else is asked for.
func (a *app) unitHere(config string, show bool) (string, error) {
	binary, err := os.Executable()
	if err != nil {
		return "", err
	}
	if binary, err = filepath.EvalSymlinks(binary); err != nil {
		return "", err
	}
	if config, err = filepath.Abs(config); err != nil {
		return "", err
	}
	data := ""
	if a.data != "" {
		if data, err = filepath.Abs(a.data); err != nil {
			return "", err
		}
	}
	for _, path := range []string{binary, config, data} {
		if strings.ContainsAny(path, "\n\r") {
			return "", usage("a path with a line break (%q) fits into no unit", path)
		}
	}
	if !plainPath.MatchString(binary) {
		return "", &p2pnode.Error{Code: "odd-path", Text: fmt.Sprintf("systemd starts no program called %q", binary), Fix: "put the binary into " + filepath.Dir(unitBinary), Exit: p2pnode.ExitUsage}
	}
	if show && !strings.HasPrefix(binary, "/usr/") {
		binary = unitBinary // where it is now is no place for a service
	}
	return unit(binary, config, data), nil
}

// plainPath is what systemd takes as the name of a program.
var plainPath = regexp.MustCompile(`^[A-Za-z0-9_./+@:,=~-]+$`)

// usable says what is missing for a unit to be run here.
func (s systemd) usable(by string) error {
	if _, err := os.Stat(s.booted); err != nil {
		return &p2pnode.Error{
			Code: "no-systemd", Text: "systemd is not the init of this host",
			Fix: "let the init that is here start and restart: p2pnode --config FILE --supervised yes\n(p2pnode service install --print shows the systemd unit; in a container p2pnode is the entrypoint)",
		}
	}
	if os.Geteuid() != 0 {
		return &p2pnode.Error{Code: "not-permitted", Text: "only root may do that to " + s.unit, Fix: "run it as root; by hand: p2pnode service install --print, then " + by, Exit: p2pnode.ExitNotPermitted}
	}
	return nil
}

// ours reports whether the unit that is there is one that p2pnode wrote.
func (s systemd) ours() (there, ours bool, err error) {
	raw, err := os.ReadFile(s.unit)
	if errors.Is(err, os.ErrNotExist) {
		return false, false, nil
	}
	first, _, _ := strings.Cut(unitText, "\n")
	return err == nil, strings.HasPrefix(string(raw), first+"\n"), err
}

// install returns what holds then. A unit that is active goes on as it is: to start it
// anew would stop its services, and that is for a person to choose.
func (s systemd) install(ctx context.Context, text string, force bool) (said string, err error) {
	there, ours, err := s.ours()
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot read %s: %w", s.unit, bare(err))
	case there && !ours && !force:
		return "", &p2pnode.Error{Code: "exists", Text: s.unit + " is there already and is not p2pnode's own", Fix: "look at it, then: p2pnode service install --force"}
	}
	name := filepath.Base(s.unit)
	said = "installed, enabled and started"
	if s.call(ctx, "is-active", "--quiet", name) == nil {
		said = "installed and enabled; what runs goes on as it was started"
		if old, err := os.ReadFile(s.unit); err != nil || string(old) != text {
			said += ", and the new unit holds from the next start on (services live on: p2pnode shutdown --keep-services, then systemctl start " + strings.TrimSuffix(name, ".service") + ")"
		}
	}
	if err := p2pnode.WriteFile(s.unit, []byte(text), 0o644); err != nil {
		return "", fmt.Errorf("cannot write %s: %w", s.unit, bare(err))
	}
	if err := s.call(ctx, "daemon-reload"); err != nil {
		return "", err
	}
	return said, s.call(ctx, "enable", "--now", name)
}

func (a *app) serviceUninstall(init systemd) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "uninstall", Short: "Stop p2pnode and its services in order, and remove the unit", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := init.usable("systemctl disable --now p2pnode"); err != nil {
				return err
			}
			if err := init.uninstall(cmd.Context(), force); err != nil {
				return err
			}
			return a.done("service-uninstall", init.unit, "stopped, disabled and removed; configuration and data are where they were")
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "also a unit that somebody else wrote")
	return cmd
}

func (s systemd) uninstall(ctx context.Context, force bool) error {
	there, ours, err := s.ours()
	switch {
	case err != nil:
		return fmt.Errorf("cannot read %s: %w", s.unit, bare(err))
	case !there:
		return &p2pnode.Error{Code: "not-installed", Text: s.unit + " is not there", Fix: "p2pnode shutdown ends a daemon that was started otherwise"}
	case !ours && !force:
		return &p2pnode.Error{Code: "exists", Text: s.unit + " is not p2pnode's own", Fix: "look at it, then: p2pnode service uninstall --force"}
	}
	if err := s.call(ctx, "disable", "--now", filepath.Base(s.unit)); err != nil {
		return err
	}
	if err := os.Remove(s.unit); err != nil {
		return fmt.Errorf("cannot remove %s: %w", s.unit, bare(err))
	}
	return s.call(ctx, "daemon-reload")
}
