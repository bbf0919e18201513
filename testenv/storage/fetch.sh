#!/usr/bin/env bash
# Fetches the storage servers of the tests, and Litestream, into .servers/, once: what is there
# in the right version is left alone. Needs Go and, for azurite, Node.js with npm.
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$PWD/.servers
mkdir -p "$dir/bin"

# go_server MODULE/PACKAGE VERSION: builds the command outside of this module.
go_server() {
  local name=${1##*/} stamp="$dir/bin/.${1##*/}-$2"
  [ -e "$stamp" ] && [ -x "$dir/bin/$name" ] && return
  echo "fetching $name $2"
  (cd "$dir" && GOFLAGS=-mod=mod CGO_ENABLED=0 GOBIN="$dir/bin" go install "$1@$2")
  rm -f "$dir/bin/.$name-"*
  touch "$stamp"
}

go_server github.com/versity/versitygw/cmd/versitygw v1.8.0
go_server github.com/fsouza/fake-gcs-server v1.56.1

# Litestream, whose files tests read and which reads theirs. Its older versions need a C compiler.
litestream() {
  local to="$dir/bin/litestream-$1"
  [ -x "$to" ] && return
  echo "fetching litestream $1"
  rm -rf "$dir/litestream" && mkdir "$dir/litestream"
  (cd "$dir/litestream" && GOFLAGS=-mod=mod GOBIN="$dir/litestream" go install "github.com/benbjohnson/litestream/cmd/litestream@$1")
  mv "$dir/litestream/litestream" "$to"
  rm -rf "$dir/litestream"
}
litestream v0.5.18
litestream v0.5.17 # the last that refuses database checksums
litestream v0.3.13 # the last that writes generations

azurite() {
  command -v npm >/dev/null || { echo "npm is missing: the Azure tests will be skipped"; return; }
  cmp -s testenv/storage/azurite/package-lock.json "$dir/azurite/package-lock.json" && [ -d "$dir/azurite/node_modules/azurite" ] && return
  echo "fetching azurite"
  rm -rf "$dir/azurite"
  mkdir -p "$dir/azurite"
  cp testenv/storage/azurite/package.json testenv/storage/azurite/package-lock.json "$dir/azurite/"
  (cd "$dir/azurite" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error)
}
azurite

# OpenSSH's server is the system's own.
[ -x "$(PATH=$PATH:/usr/sbin command -v sshd)" ] || echo "sshd is missing: the SFTP tests will be skipped (apt-get install openssh-server)"
