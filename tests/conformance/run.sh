#!/bin/bash
# csi-sanity, the Kubernetes project's suite for CSI drivers, against the real program with real mounts:
#
#   1. the node plugin with the Controller service on the same socket, where every specification can run;
#   2. the node plugin and the controller as two processes with a socket each, as in a cluster.
#
# Needs root (or sudo), umoci, and the Go of go.mod; `make conformance` sees to all of it. Arguments go to the
# suite, for example: run.sh -ginkgo.focus=NodePublish -ginkgo.v
set -euo pipefail
cd "$(dirname "$0")/../.."

die() { echo "conformance: error: $*" >&2; exit 1; }
say() { echo "conformance: $*"; }
as_root() { scripts/as-root.sh "$@"; }

command -v umoci >/dev/null || die "umoci is missing; run: make setup"
want=$(sed -n 's/^go \([0-9.]*\).*/\1/p' tests/conformance/go.mod)
command -v go >/dev/null || die "Go is missing; run: make conformance, which finds one"
have=$(go env GOVERSION); have=${have#go}
[ "$(printf '%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] ||
    die "Go $have is older than $want; run: make conformance, which finds a newer one"

say "building the driver and the suite"
cargo build --quiet --locked --bin composefs-csi
program=${CARGO_TARGET_DIR:-target}/debug/composefs-csi
# /var/tmp is on a disk where /tmp may be memory.
work=$(mktemp -d /var/tmp/composefs-csi-conformance.XXXXXX)
plugins=()

stop() {
    local pid
    for pid in "${plugins[@]}"; do as_root kill "$pid" 2>/dev/null || true; done
    for pid in "${plugins[@]}"; do wait "$pid" 2>/dev/null || true; done
    plugins=()
}
cleanup() {
    local status=$?
    stop
    if [ $status -ne 0 ]; then
        for log in "$work"/*.log; do [ -e "$log" ] && { echo "--- $log"; tail -n 40 "$log"; } >&2; done
    fi
    # Deepest first, and only what was mounted below our own directory.
    awk -v top="$work/" 'index($5, top) == 1 { print $5 }' /proc/self/mountinfo | sort -r |
        while read -r mount; do as_root umount -l "$mount" || true; done
    as_root rm -rf --one-file-system "$work"
}
trap cleanup EXIT

(cd tests/conformance && go test -c -o "$work/sanity" .)

say "making an image"
mkdir -p "$work/tree/etc" "$work/layouts"
echo "published by csi-sanity" >"$work/tree/etc/motd"
head -c 100000 /dev/urandom >"$work/tree/blob"
umoci init --layout "$work/layouts/sanity" 2>/dev/null
umoci new --image "$work/layouts/sanity:1" 2>/dev/null
umoci insert --rootless --image "$work/layouts/sanity:1" "$work/tree" / 2>/dev/null

# start NAME SOCKET ARGUMENT...: runs the driver in the background until it says that it serves.
start() {
    local name=$1 socket=$2; shift 2
    # Not by the function: $! must be the driver (or sudo, which passes signals on), not a shell.
    scripts/as-root.sh env "CSI_ENDPOINT=unix://$socket" "$program" --state-dir "$work/state" "$@" \
        --without-policy accept --layout-dir "$work/layouts" >"$work/$name.log" 2>&1 &
    plugins+=($!)
    local _
    for _ in $(seq 100); do
        grep -Eq 'ready; serving volumes|serving the controller' "$work/$name.log" && return
        kill -0 "${plugins[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    die "the $name did not start"
}

# suite SUITE-ARGUMENT...: runs csi-sanity, then looks for what it may have left.
suite() {
    as_root env "SANITY_ENDPOINT=$work/node.sock" "SANITY_CONTROLLER_ENDPOINT=${controller:-}" \
        "SANITY_TARGETS=$work/kubelet/targets" "SANITY_STAGING=$work/kubelet/staging" \
        "SANITY_IMAGE=oci:$work/layouts/sanity:1" "$work/sanity" -test.timeout=10m \
        -ginkgo.no-color "$@"
    local left
    left=$(awk -v top="$work/kubelet/" 'index($5, top) == 1 { print $5 }' /proc/self/mountinfo)
    [ -z "$left" ] || die "still mounted after the suite: $left"
    left=$(as_root find "$work/state/store/volumes" -name '*.json')
    [ -z "$left" ] || die "volume records left after the suite: $left"
    left=$(as_root find "$work/kubelet" -mindepth 1)
    [ -z "$left" ] || die "directories left after the suite: $left"
}

mkdir "$work/kubelet"
node=(node --node-id sanity-node --kubelet-dir "$work/kubelet")

say "1 of 2: node and controller in one process"
start node "$work/node.sock" "${node[@]}" --with-controller
suite "$@"
stop

say "2 of 2: node and controller apart"
start node "$work/node.sock" "${node[@]}"
controller=$work/controller.sock
start controller "$controller" controller
suite "$@"
stop
[ ! -e "$work/node.sock" ] || die "the node plugin left its socket behind"
say "passed"
