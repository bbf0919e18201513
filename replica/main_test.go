package replica

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if role := os.Getenv("REPLICA_TEST_ROLE"); role != "" {
		os.Exit(runChild(role))
	}
	goleak.VerifyTestMain(m)
}
