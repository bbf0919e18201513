# Needs Go 1.26 or newer and a C compiler (SQLite is built from source by go-sqlite3).
GO      ?= go
PKGS    ?= ./...
BENCH   ?= .
FUZZTIME ?= 1m
export CGO_ENABLED = 1
# The race detector: not a second of sleep when each process ends, and its shadow of large allocations cleared in
# place, not mapped anew: page faults were half the time of many tests.
export GORACE ?= atexit_sleep_ms=50 clear_shadow_mmap_threshold=16777216

.PHONY: all build demo servers test test-short check lint bench fuzz soak clean

all: build

build:            ## bin/ltx-pub, bin/ltx-sub, bin/ltx-archive
	$(GO) build -o bin/ ./cmd/ltx-pub ./cmd/ltx-sub ./cmd/ltx-archive

demo: build       ## 15 seconds of live replication on this terminal
	$(GO) run ./cmd/ltx-demo

servers:          ## the storage servers that tests run, once, into .servers/
	testenv/storage/fetch.sh

# Packages that prove what docs/traps.md names: one after the other, for their tests look at times. Four tests at once
# keep two cores busy: each waits a good part of its time. (lint vets; without DWARF linking takes half the time.)
ALONE = /(e2e|publisher|replica|internal/capture|internal/wal)$$
TEST  = $(GO) test -race -vet=off -ldflags=-w -parallel 4 -timeout 30m

test: servers     ## every test, with the race detector
	@all=$$($(GO) list $(PKGS)) || exit 1; status=0; \
	alone=$$(echo "$$all" | grep -E '$(ALONE)'); others=$$(echo "$$all" | grep -vE '$(ALONE)'); \
	[ -z "$$alone" ] || $(TEST) -p 1 $$alone || status=1; \
	[ -z "$$others" ] || $(TEST) -p 2 $$others || status=1; \
	exit $$status

test-short:       ## the quick loop: no storage servers, no long tests
	$(GO) test -short -timeout 10m $(PKGS)

check: lint test  ## what CI runs

lint:             ## format, vet, staticcheck
	@fmt=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$fmt" ]; then echo "gofmt would change:"; echo "$$fmt"; exit 1; fi
	$(GO) vet $(PKGS)
	GOOS=darwin GOARCH=arm64 CGO_ENABLED=0 $(GO) vet ./internal/wal
	$(GO) tool staticcheck $(PKGS)

bench: build      ## the figures of docs/performance.md
	$(GO) run ./cmd/ltx-bench $(BENCHFLAGS)
	$(GO) test -run '^$$' -bench '$(BENCH)' -benchtime 1s -timeout 60m ./internal/crc64iso ./internal/wal ./internal/pagesum ./internal/capture ./replica ./compactor ./subscriber/archive

fuzz:             ## each fuzz target for FUZZTIME
	@set -e; for p in $$($(GO) list $(PKGS)); do \
	  for t in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do \
	    echo "== $$p $$t"; $(GO) test -run '^$$' -fuzz "^$$t$$" -fuzztime $(FUZZTIME) $$p; done; done

soak:             ## the long forms of the tests
	$(GO) test -race -tags soak -timeout 24h $(PKGS)

clean:
	rm -rf bin
