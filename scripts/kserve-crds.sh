#!/bin/bash
# Prints a directory with the CustomResourceDefinitions of a KServe release.
#
#   scripts/kserve-crds.sh
#
# They come with KServe's module from the Go module proxy, once; only the definitions are kept, in
# ${XDG_CACHE_HOME:-~/.cache}/composefs-csi/tools/kserve-VERSION. Nothing is built or installed.
set -euo pipefail
cd "$(dirname "$0")/.."

version=0.15.2

say() { echo "kserve-crds: $*" >&2; }
die() { say "error: $*"; exit 1; }

[ $# -eq 0 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
dir=${XDG_CACHE_HOME:-$HOME/.cache}/composefs-csi/tools/kserve-$version
mkdir -p "$dir"
# One at a time: several tests ask at once.
exec 9>"$dir/.lock"
flock 9
if [ ! -d "$dir/crds" ]; then
    go=$(scripts/go.sh)
    work=$(mktemp -d)
    trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
    say "fetching the definitions of KServe $version, once"
    # A module cache of its own: of the whole module only a few files are kept.
    (cd "$work" && GOFLAGS=-modcacherw GOMODCACHE="$work/cache" \
        "$go/go" mod download "github.com/kserve/kserve@v$version" >&2 9>&-) \
        || die "cannot fetch KServe $version; see go's message above (it needs the Go module proxy, see GOPROXY)"
    cp -r "$work/cache/github.com/kserve/kserve@v$version/config/crd/full" "$dir/crds.new"
    mv "$dir/crds.new" "$dir/crds"
fi
echo "$dir/crds"
