package testenv

import (
	"fmt"
	"maps"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/testenv/app"
	"github.com/ltxstream/ltxstream/testenv/child"
	"github.com/ltxstream/ltxstream/testenv/foreign"
	"github.com/ltxstream/ltxstream/testenv/natsserver"
	"github.com/ltxstream/ltxstream/testenv/workload"
)

// Main is the body of TestMain: in a child process it does the child's job; in the test process it runs the tests and fails
// the package when goroutines are left. jobs are a package's own jobs for child.Start. It does not return.
func Main(m *testing.M, jobs ...child.Jobs) {
	Dispatch(jobs...)
	code := m.Run()
	if code == 0 {
		if err := leaked(); err != nil {
			fmt.Fprintf(os.Stderr, "goroutines are left: %v\n", err)
			code = 1
		}
	}
	os.Exit(code)
}

// leaked waits for goroutines to end; goleak by itself gives up after two seconds.
func leaked() error {
	deadline := time.Now().Add(patience)
	for {
		err := goleak.Find()
		if err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// Dispatch does the job in a child process and exits; in any other process it returns at once. It is for programs that are not
// tests, and for packages with a TestMain of their own.
func Dispatch(jobs ...child.Jobs) {
	all := child.Jobs{}
	for _, j := range append(jobs, app.Jobs(), foreign.Jobs(), natsserver.Jobs(), workload.Jobs()) {
		maps.Copy(all, j)
	}
	child.Dispatch(all)
}
