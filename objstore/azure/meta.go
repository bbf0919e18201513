package azure

import (
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"

	"github.com/ltxstream/ltxstream/objstore"
)

// Names of metadata in the container; they must be identifiers.
const (
	metaTimestamp = "litestreamtimestamp"
	metaPrefix    = "ltxstream"
)

// timestampLayout is RFC 3339 with milliseconds, always.
const timestampLayout = "2006-01-02T15:04:05.000Z07:00"

func encodeMeta(opts objstore.PutOptions) map[string]*string {
	meta := map[string]*string{metaTimestamp: to.Ptr(opts.Timestamp.UTC().Format(timestampLayout))}
	for name, value := range opts.Meta {
		meta[metaPrefix+name] = to.Ptr(value)
	}
	return meta
}

// decodeMeta sets the timestamp and the metadata of info. What is not ours is
// left out.
func decodeMeta(info *objstore.Info, meta map[string]*string) {
	for name, value := range meta {
		name = strings.ToLower(name)
		if value == nil {
			continue
		}
		if name == metaTimestamp {
			if t, err := time.Parse(time.RFC3339Nano, *value); err == nil {
				info.Timestamp = t.UTC()
			}
			continue
		}
		if name, ours := strings.CutPrefix(name, metaPrefix); ours && name != "" {
			if info.Meta == nil {
				info.Meta = map[string]string{}
			}
			info.Meta[name] = *value
		}
	}
}
