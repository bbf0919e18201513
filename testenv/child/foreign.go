package child

import (
	"os/exec"
	"strconv"
	"syscall"
)

// foreignScript runs a program that does not look at its standard input, and signals it when that ends, be it that
// this process died; a minute later it is killed.
const foreignScript = `exec 3<&0
signal=$1; shift
"$@" </dev/null 3<&- & program=$!
(read -r _; kill -$signal $program; i=0; while [ $i -lt 60 ]; do kill -0 $program || exit; sleep 1; i=$((i+1)); done; kill -9 $program) <&3 >/dev/null 2>&1 &
exec 3<&-
wait $program`

// StartForeign runs cmd, a program of somebody else, which gets the signal stop when its Process is stopped, killed,
// or outlived.
func StartForeign(cmd *exec.Cmd, stop syscall.Signal, onLine func([]byte)) (*Process, error) {
	shell := exec.Command("sh", append([]string{"-c", foreignScript, "sh", strconv.Itoa(int(stop)), cmd.Path}, cmd.Args[1:]...)...)
	shell.Env, shell.Dir = cmd.Env, cmd.Dir
	return StartCommand(shell, onLine)
}
