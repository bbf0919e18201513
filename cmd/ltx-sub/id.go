package main

import (
	"fmt"
	"hash/fnv"
	"os"
	"strings"
)

const maxHostLen = 40

// replicaID names a replica file among all of its database: host name and a
// hash of the absolute path, so that it is the same after a restart.
func replicaID(path string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "host"
	}
	return idFor(host, path)
}

func idFor(host, path string) string {
	host, _, _ = strings.Cut(host, ".")
	token := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '-'
	}, host)
	h := fnv.New32a()
	_, _ = h.Write([]byte(path)) // never fails
	return fmt.Sprintf("%s-%08x", token[:min(len(token), maxHostLen)], h.Sum32())
}
