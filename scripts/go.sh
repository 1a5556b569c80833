#!/bin/bash
# Prints the directory of a Go toolchain that is new enough for a module: the machine's own, else Debian's from
# a newer suite, unpacked privately (nothing is installed).
#
#   scripts/go.sh [GO.MOD]     by default the conformance suite's
set -euo pipefail
cd "$(dirname "$0")/.."

module=${1:-tests/conformance/go.mod}
want=$(sed -n 's/^go \([0-9.]*\).*/\1/p' "$module")
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$1" ]; }

have=''
if command -v go >/dev/null; then have=$(go version | sed -n 's/^go version go\([0-9.]*\).*/\1/p'); fi
if [ -n "$have" ] && at_least "$want" "$have"; then
    dirname "$(command -v go)"
else
    echo "setup: Go ${have:-is missing} and $module needs $want; unpacking Debian's" >&2
    if at_least "$want" 1.24; then set=go; else set=go-1.26; fi
    echo "$(scripts/debian-tools.sh "$set")/bin"
fi
