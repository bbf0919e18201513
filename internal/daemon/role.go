package daemon

import "time"

// Role is one thing a process does for one database, as the health endpoints
// see it. Methods are called concurrently and return at once.
type Role interface {
	// Name tells this role from the others of the process, "app" for example.
	Name() string
	// Ready returns nil when the role does its work. A lag above maxLag is an
	// error; maxLag 0 means that lag does not count.
	Ready(maxLag time.Duration) error
	// Status is what /status shows, as JSON.
	Status() any
}
