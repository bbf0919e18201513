package stream

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/ltxstream/ltxstream/wire"
)

// LossyError names the settings by which an existing stream would lose data
// or never accept it.
type LossyError struct {
	Stream   string
	Settings []string // one readable fault each, with the value found
}

func (e *LossyError) Error() string {
	return fmt.Sprintf("stream %s could lose data (%s): change its settings or accept the risk", e.Stream, strings.Join(e.Settings, "; "))
}

// lossy lists what is wrong with the settings c of an existing stream.
func lossy(c jetstream.StreamConfig, want Config) []string {
	var faults []string
	add := func(bad bool, format string, args ...any) {
		if bad {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	add(c.Storage != jetstream.FileStorage, "storage is %s, want file", strings.ToLower(c.Storage.String()))
	add(c.Retention != jetstream.LimitsPolicy, "retention is %s, want limits", strings.ToLower(c.Retention.String()))
	add(c.Discard != jetstream.DiscardNew && c.MaxBytes > 0, "discards old messages past max_bytes %d, want discard new", c.MaxBytes)
	add(c.MaxMsgs > 0, "max_msgs is %d, want none", c.MaxMsgs)
	add(c.MaxMsgsPerSubject > 0, "max_msgs_per_subject is %d, want none", c.MaxMsgsPerSubject)
	add(c.MaxAge > 0 && (want.Retain == 0 || c.MaxAge < want.Retain), "max_age is %s, asked for %s", c.MaxAge, retainText(want))
	add(c.PersistMode == jetstream.AsyncPersistMode, "persist_mode is async, want default")
	add(c.NoAck, "no_ack is set")
	add(c.Mirror != nil, "it is a mirror")
	add(c.Sealed, "it is sealed")
	add(c.SubjectTransform != nil, "it rewrites subjects")
	subject := wire.StreamSubjects
	if want.DB != "" {
		subject = want.DB.Filter()
	}
	add(c.Mirror == nil && !covered(c.Subjects, subject), "subjects are %s, want %s", strings.Join(c.Subjects, ","), subject)
	return faults
}

func retainText(c Config) string {
	if c.Retain == 0 {
		return "no age limit"
	}
	return c.Retain.String()
}

// covered reports whether one of the subjects matches all that want matches.
func covered(subjects []string, want string) bool {
	for _, s := range subjects {
		if covers(strings.Split(s, "."), strings.Split(want, ".")) {
			return true
		}
	}
	return false
}

func covers(have, want []string) bool {
	for i, token := range have {
		if token == ">" {
			return i < len(want)
		}
		if i >= len(want) || token != want[i] && (token != "*" || want[i] == ">") {
			return false
		}
	}
	return len(have) == len(want)
}
