package daemon

import "syscall"

// dieWithParent has the system kill the child when the thread that made it ends.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
