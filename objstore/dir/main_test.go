package dir

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if step := os.Getenv(envStep); step != "" {
		dieAt(step)
	}
	goleak.VerifyTestMain(m)
}
