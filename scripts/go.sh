#!/bin/bash
# Prints the directory of a Go toolchain that is new enough for the conformance suite: the machine's own,
# else Debian's from a newer suite, unpacked privately (nothing is installed).
set -euo pipefail
cd "$(dirname "$0")/.."

want=$(sed -n 's/^go \([0-9.]*\).*/\1/p' tests/conformance/go.mod)
have=''
if command -v go >/dev/null; then have=$(go version | sed -n 's/^go version go\([0-9.]*\).*/\1/p'); fi
if [ -n "$have" ] && [ "$(printf '%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ]; then
    dirname "$(command -v go)"
else
    echo "setup: Go ${have:-is missing} and the conformance suite needs $want; unpacking Debian's" >&2
    echo "$(scripts/debian-tools.sh go)/bin"
fi
