package config

import (
	"fmt"
	"maps"
	"slices"
)

// secrets are the environment variables that have to hold what must not be in a
// file, and of which keys they were.
type secrets struct {
	values map[string]string // by variable
	keys   map[string]string // the first that it was of
}

// secretsOf are the keys of each type of replica that are secret, and where we look
// for them.
var secretsOf = map[string]map[string]string{
	"s3":   {"access-key-id": "AWS_ACCESS_KEY_ID", "secret-access-key": "AWS_SECRET_ACCESS_KEY"},
	"abs":  {"account-key": "AZURE_STORAGE_KEY", "sas-token": "AZURE_STORAGE_SAS_TOKEN"},
	"sftp": {"password": "LTX_SFTP_PASSWORD"},
	"nats": {"password": "NATS_PASSWORD", "token": "NATS_TOKEN"},
}

// note tells for each secret of a replica the variable to set. One process has one
// value of it.
func (s *secrets) note(r *section, kind string) {
	for _, name := range slices.Sorted(maps.Keys(secretsOf[kind])) {
		if value := r.text(name); value != "" {
			s.add(r, name, secretsOf[kind][name], value)
		}
	}
}

func (s *secrets) add(r *section, name, variable, value string) {
	_, in := r.get(name)
	key := in.key(name)
	if s.values == nil {
		s.values, s.keys = map[string]string{}, map[string]string{}
	}
	other, known := s.values[variable]
	switch {
	case known && other != value:
		r.log.note(archive, key, "differs from %s: one process has one %s, so a second ltx-archive (and ltx-pub) is needed", s.keys[variable], variable)
	case known:
	case value == fmt.Sprintf("${%s}", variable):
		s.values[variable], s.keys[variable] = value, key // set already
	default:
		s.values[variable], s.keys[variable] = value, key
		r.log.note(archive, key, "not written to a file: set %s in the environment of ltx-archive, and of ltx-pub for from-litestream", variable)
	}
}

// variables are those to set, in order.
func (s *secrets) variables() []string { return slices.Sorted(maps.Keys(s.values)) }
