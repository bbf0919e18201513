package sftp

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	// The keys and agents of who runs the tests are none of theirs.
	os.Unsetenv("SSH_AUTH_SOCK")
	os.Unsetenv(envPassword)
	goleak.VerifyTestMain(m)
}
