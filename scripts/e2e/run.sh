#!/bin/bash
# make e2e: the driver's image, a cluster on this machine, tests/kind against it, and nothing left afterwards.
#
#   run.sh [SCENARIO…]      only scenarios whose names contain one of these words
#
#   KEEP=1    leaves the cluster running; scripts/e2e/cluster.sh (which says how) then uses and ends it
#   COMPOSEFS_CSI_E2E_KUBERNETES   1.36 runs on that release and not on 1.20
#   PROFILE   cargo's profile for the driver; dev by default, and then its memory is judged without its code
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=common.sh
. scripts/e2e/common.sh

# A cluster of this run's own, unless one is to be kept: then it has the name that cluster.sh expects.
[ -n "${KEEP:-}" ] || e2e_state=$(mktemp -u /var/tmp/composefs-csi-e2e.XXXXXX)
export COMPOSEFS_CSI_E2E_STATE=$e2e_state
cluster=$PWD/scripts/e2e/cluster.sh
archive=${CARGO_TARGET_DIR:-target}/e2e-image.tar

finish() {
    local status=$?
    if [ $status -ne 0 ] && [ -d "$e2e_state/log" ]; then
        local log
        for log in node kubelet containerd kube-apiserver; do
            echo "--- $log.log"
            scripts/as-root.sh tail -n 20 "$e2e_state/log/$log.log" || true
        done >&2
    fi
    rm -f "$archive"
    if [ -n "${KEEP:-}" ]; then
        say "the cluster stays; end it with: scripts/e2e/cluster.sh down"
    else
        "$cluster" down || status=1
    fi
    exit $status
}
trap finish EXIT
trap 'exit 130' INT TERM

# As whoever called: only the cluster itself needs root.
scripts/e2e/build.sh >/dev/null
scripts/helm.sh >/dev/null
scripts/debian-tools.sh cosign >/dev/null
say "building the driver's image and the suite"
IMAGE=e2e.local/composefs-csi:1 PROFILE=${PROFILE:-dev} ARCHIVE=$archive scripts/image.sh >&2
cargo test --locked --quiet --no-run --test kind

# Said here and not taken from the caller: what is released must be judged by all of its memory.
unset COMPOSEFS_CSI_E2E_UNOPTIMISED
if [ "${PROFILE:-dev}" = dev ]; then export COMPOSEFS_CSI_E2E_UNOPTIMISED=1; fi
"$cluster" up
"$cluster" import "$archive"
host=$(rustc -vV | sed -n 's/^host: //p' | tr 'a-z-' 'A-Z_')
export "CARGO_TARGET_${host}_RUNNER=$cluster exec"
cargo test --locked --quiet --test kind -- "$@"
