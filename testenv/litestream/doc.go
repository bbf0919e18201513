// Package litestream runs the real Litestream for tests: what it wrote is read
// by this project's code, and what this project wrote is read by it.
// `make servers` builds it into .servers/; a test without it is skipped and says
// so, except under CI, where it fails.
//
// It knows no role and no backend.
package litestream
