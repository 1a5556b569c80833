#!/bin/bash
# Builds the sigstore for tests (tests/sigstore) and prints the path of the program. Go's module proxy and build
# cache are the machine's own.
set -euo pipefail
cd "$(dirname "$0")/.."

directory=${CARGO_TARGET_DIR:-target}/sigstore
mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
go=$(scripts/go.sh tests/sigstore/go.mod)/go
# One at a time: several tests ask at once.
exec 9>"$directory/.lock"
flock 9
GOTOOLCHAIN=local "$go" build -C tests/sigstore -mod=readonly -o "$directory/sigstore" . >&2
echo "$directory/sigstore"
