package workload

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/ltxstream/ltxstream/testenv/child"
)

func TestMain(m *testing.M) {
	child.Dispatch(Jobs())
	goleak.VerifyTestMain(m)
}
