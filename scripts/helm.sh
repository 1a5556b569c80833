#!/bin/bash
# Prints the path of a helm: the machine's own if it is new enough, else one built here.
#
#   scripts/helm.sh [DIR]
#
# DIR defaults to ${XDG_CACHE_HOME:-~/.cache}/composefs-csi/tools/helm-VERSION; the program is DIR/bin/helm.
# It comes from the Go module proxy, is built once (some minutes, at low priority, outside the repository)
# and never again. Nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/.."

# The last release that Debian's Go (scripts/go.sh) can build.
version=3.19.5
# The first that knows `helm lint --kube-version` and schema errors of subfields by name.
oldest=3.14.0

say() { echo "helm: $*" >&2; }
die() { say "error: $*"; exit 1; }

[ $# -le 1 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
if [ $# -eq 0 ] && command -v helm >/dev/null; then
    have=$(helm version --template '{{.Version}}' | sed 's/^v//; s/[+-].*//')
    if [ "$(printf '%s\n' "$oldest" "$have" | sort -V | head -n 1)" = "$oldest" ]; then
        command -v helm
        exit
    fi
    say "the helm on this machine is $have, and the chart needs $oldest; building $version"
fi
dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/composefs-csi/tools/helm-$version}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# One at a time: several tests ask at once.
exec 9>"$dir/.lock"
flock 9
if [ ! -x "$dir/bin/helm" ]; then
    go=$(scripts/go.sh)
    say "building helm $version; this takes some minutes, once"
    # A static program; without the version in it, helm calls itself v3.19 and charts may refuse it.
    GOBIN="$dir/bin" CGO_ENABLED=0 GOFLAGS='' nice -n 19 "$go/go" install -trimpath \
        -ldflags "-s -w -X helm.sh/helm/v3/internal/version.version=v$version" \
        "helm.sh/helm/v3/cmd/helm@v$version" >&2 9>&- \
        || die "cannot build helm $version; see go's message above (it needs the Go module proxy, see GOPROXY)"
    say "helm is ready in $dir/bin"
fi
echo "$dir/bin/helm"
