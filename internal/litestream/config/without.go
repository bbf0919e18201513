package config

import "maps"

// What has no counterpart, and why, by where it may stand.
var (
	replicaWithout = map[string]string{
		"name":                     "destinations have no names",
		"validation-interval":      "run ltx-archive verify now and then",
		"retention-check-interval": "retention is looked at every five minutes",
		"max-sync-ltx-files":       "a flush writes all that waits",
		"auto-recover":             "a broken chain goes on behind a snapshot by itself",
		"sign-payload":             "requests are signed as the AWS SDK does by itself",
		"sign-accept-encoding":     "requests are signed as the AWS SDK does by itself",
		"require-content-md5":      "uploads bear CRC32 checksums",
		"put-object-content-md5":   "uploads bear CRC32 checksums",
		"skip-verify":              "certificates are always verified; SSL_CERT_FILE adds an authority",
		"storage-class":            "objects get the bucket's default class",
		"concurrency":              "parts are uploaded in parallel by themselves",
		"sse-customer-algorithm":   "keys of the customer are not supported, what is encrypted with one cannot be read",
		"sse-customer-key":         "keys of the customer are not supported, what is encrypted with one cannot be read",
		"sse-customer-key-path":    "keys of the customer are not supported, what is encrypted with one cannot be read",
		"sse-kms-key-id":           "set the key as the bucket's default",
		"concurrent-writes":        "uploads over SFTP are pipelined by themselves",
		"webdav-url":               "ltx-archive has no WebDAV",
		"webdav-username":          "ltx-archive has no WebDAV",
		"webdav-password":          "ltx-archive has no WebDAV",
		"jwt":                      "put JWT and seed into a credentials file: creds",
		"seed":                     "put JWT and seed into a credentials file: creds",
		"nkey":                     "put the seed into a file: nkey",
		"tls":                      "write the server as tls://host:4222",
		"max-reconnects":           "the connection is tried again for ever",
		"reconnect-wait":           "the connection is tried again for ever",
		"timeout":                  "requests are tried again for ever",
		"age":                      "files are not encrypted; use what the storage offers",
	}

	dbWithout = map[string]string{
		"meta-path":                 "the state directory is .NAME-ltx beside the database; Litestream's may be deleted once you will not go back",
		"meta-dir":                  "the state directory is .NAME-ltx beside the database; Litestream's may be deleted once you will not go back",
		"monitor-interval":          "changes are seen as they happen",
		"checkpoint-interval":       "the application checkpoints; see soft-wal-limit",
		"min-checkpoint-page-count": "the application checkpoints; see soft-wal-limit",
		"max-checkpoint-page-count": "the application checkpoints; see soft-wal-limit",
		"truncate-page-n":           "the application checkpoints; see soft-wal-limit",
		"max-sync-wal-bytes":        "transactions of any size are read piece by piece",
		"busy-timeout":              "no lock is waited for longer than milliseconds",
		"restore-if-db-not-exists":  "run ltx-archive restore URL NAME OUTPUT before the application starts",
	}

	topWithout = with(replicaWithout, map[string]string{
		"exec":                        "start the application as a service of its own",
		"socket":                      "ask a running ltx-pub over NATS: ltx-pub status, ltx-pub sync",
		"mcp-addr":                    "there is no MCP server",
		"validation":                  "run ltx-archive verify now and then",
		"l0-retention":                "level 0 is the stream: see retain",
		"l0-retention-check-interval": "level 0 is the stream: see retain",
		"verify-compaction":           "every merge is verified",
		"heartbeat-url":               "watch /healthz and /readyz: see http",
		"heartbeat-interval":          "watch /healthz and /readyz: see http",
		"shutdown-timeout":            "a stop flushes for 10 seconds at most",
		"shutdown-sync-timeout":       "a stop flushes for 10 seconds at most",
		"shutdown-sync-interval":      "a stop flushes for 10 seconds at most",
	}, unused)

	// unused are defaults of replicas that no replica asked for.
	unused = map[string]string{
		"access-key-id": never, "secret-access-key": never, "region": never, "bucket": never, "endpoint": never, "force-path-style": never, "part-size": never,
		"account-name": never, "account-key": never, "sas-token": never,
		"host": never, "user": never, "password": never, "key-path": never, "host-key": never,
		"creds": never, "username": never, "token": never, "root-cas": never, "client-cert": never, "client-key": never, "sync-interval": never,
	}
)

const never = "no replica uses it"

func with(all ...map[string]string) map[string]string {
	sum := map[string]string{}
	for _, m := range all {
		maps.Copy(sum, m)
	}
	return sum
}
