package exec

import (
	"os"
	osexec "os/exec"
	"slices"
	"syscall"
)

// Foreign readies a program that a role starts beside its own work. It inherits
// neither the role's lock nor its cookie nor its session: by any of these exec would
// take it, when the role is dead, for a copy that lives.
func Foreign(cmd *osexec.Cmd) {
	closeOnExec()
	cmd.Env = append(slices.DeleteFunc(os.Environ(), private), cmd.Env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
}
