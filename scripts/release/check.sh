#!/bin/bash
# Checks that all that names a version names the same one. Prints it.
#
#   scripts/release/check.sh [TAG]
#
# With a TAG (v0.1.0), which a release has, that must be the version as well, and CHANGELOG.md must have its section.
# Without, the section may still be called "Unreleased".
set -euo pipefail
cd "$(dirname "$0")/../.."

[ $# -le 1 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
failed=''
# same WHERE FOUND: FOUND is what WHERE says.
same() {
    [ "$2" = "$version" ] && return
    echo "release: error: Cargo.toml says $version and $1 says ${2:-nothing}" >&2
    failed=1
}

same Cargo.lock "$(sed -n '/^name = "composefs-csi"$/{n;s/^version = "\(.*\)"/\1/p}' Cargo.lock)"
chart=charts/composefs-csi/Chart.yaml
same "$chart (version)" "$(sed -n 's/^version: *//p' "$chart")"
same "$chart (appVersion)" "$(sed -n 's/^appVersion: *"\(.*\)"/\1/p' "$chart")"
same Dockerfile "$(sed -n 's/^ARG VERSION=//p' Dockerfile)"
# Written by `make manifests`.
for tag in $(sed -n 's|^ *image: .*/composefs-csi:||p' manifests/composefs-csi.yaml | sort -u); do
    same manifests/composefs-csi.yaml "$tag"
done
[ $# -eq 0 ] || same "the tag $1" "${1#v}"
if ! scripts/release/notes.sh "$version" >/dev/null 2>&1; then
    if [ $# -gt 0 ] || ! scripts/release/notes.sh Unreleased >/dev/null 2>&1; then
        echo "release: error: CHANGELOG.md has no section '## $version (DATE)'" >&2
        failed=1
    fi
fi
[ -z "$failed" ] || exit 1
echo "$version"
