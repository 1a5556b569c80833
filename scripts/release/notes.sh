#!/bin/bash
# Prints what CHANGELOG.md says of a version, without the heading.
#
#   scripts/release/notes.sh VERSION
set -euo pipefail
cd "$(dirname "$0")/../.."

[ $# -eq 1 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
notes=$(awk -v version="$1" '/^## / { inside = $2 == version; next } inside' CHANGELOG.md)
[ -n "$notes" ] || { echo "release: CHANGELOG.md has no section '## $1'" >&2; exit 1; }
printf '%s\n' "$notes"
