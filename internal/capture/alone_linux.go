package capture

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ltxstream/ltxstream/internal/wal"
)

// alone reports whether no process but this one holds a lock on the -shm file:
// every open connection holds one. It is false where that cannot be told.
func alone(shm wal.FileID) bool {
	f, err := os.Open("/proc/locks")
	if err != nil {
		return false
	}
	defer f.Close()
	want := fmt.Sprintf("%02x:%02x:%d", unix.Major(shm.Dev), unix.Minor(shm.Dev), shm.Inode)
	self, ours := fmt.Sprint(os.Getpid()), false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		// 1: POSIX  ADVISORY  READ 4711 fe:01:393 128 128
		w := strings.Fields(lines.Text())
		if len(w) < 8 || w[1] != "POSIX" || w[5] != want {
			continue
		}
		if w[4] != self {
			return false
		}
		ours = true
	}
	return ours
}
