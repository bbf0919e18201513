package storage

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ltxstream/ltxstream/testenv/child"
)

// AzuriteServer is one azurite: Azure's blob service, with everything in memory
// and without containers.
type AzuriteServer struct {
	Endpoint     string // of the account's blob service
	Account, Key string // the key is that of AzureKey
}

// AzureKey is the account key of every azurite of this process: a command reads
// it from the environment, which is the same for all tests.
var AzureKey = sync.OnceValue(func() string {
	key := make([]byte, 64)
	_, _ = rand.Read(key)
	return base64.StdEncoding.EncodeToString(key)
})

// azuriteReady is how long node may take to load azurite on a busy machine.
const azuriteReady = 60 * time.Second

// untilStdinEnds runs a script of node until it is done or we are gone.
const untilStdinEnds = `process.stdin.resume().on("end", () => process.exit()); require(process.argv[1])`

// Azurite starts an azurite, until the end of the test.
func Azurite(t testing.TB) AzuriteServer {
	t.Helper()
	main := Find(t, "azurite/node_modules/azurite/dist/src/blob/main.js")
	node, err := exec.LookPath("node")
	if err != nil {
		Missing(t, "node", "install Node.js 20 or later, and npm")
	}
	s := AzuriteServer{Account: "ltxstreamtest", Key: AzureKey()}

	cmd := exec.Command(node, "-e", untilStdinEnds, main, "--blobHost", "127.0.0.1", "--blobPort", "0",
		"--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent")
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "AZURITE_ACCOUNTS="+s.Account+":"+s.Key)
	listens := make(chan string, 1)
	p, err := child.StartCommand(cmd, func(line []byte) {
		if _, url, ok := strings.Cut(string(line), "successfully listens on "); ok {
			listens <- strings.TrimSpace(url)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)

	ctx, cancel := context.WithTimeout(t.Context(), azuriteReady)
	defer cancel()
	select {
	case url := <-listens:
		s.Endpoint = url + "/" + s.Account
	case <-p.Done():
		t.Fatalf("azurite ended: %v", p.Err())
	case <-ctx.Done():
		t.Fatalf("azurite does not listen after %s", azuriteReady)
	}
	return s
}
