//go:build !linux

package daemon

import "syscall"

// dieWithParent is more than this system can do.
func dieWithParent() *syscall.SysProcAttr { return nil }
