package daemon

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Version of the commands, as semantic versioning has it.
const Version = "0.1.0"

// VersionText is what --version prints: version, revision and Go version.
func VersionText(command string) string {
	revision := "unknown revision"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	return fmt.Sprintf("%s %s (%s, %s)", command, Version, revision, runtime.Version())
}
