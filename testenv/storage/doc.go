// Package storage runs real storage servers for tests, each on a loopback port
// of its own: versitygw (S3), fake-gcs-server (GCS), azurite (Azure), OpenSSH's
// sshd (SFTP). `make servers` fetches them into .servers/; a test whose server
// is missing is skipped and says so, except under CI, where it fails.
//
// It knows no role and no backend.
package storage
