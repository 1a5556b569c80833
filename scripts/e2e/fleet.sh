#!/bin/bash
# make fleet: what prefetching costs an API server, with many nodes that are none: examples/fleet on a cluster that starts
# here and ends with it. Arguments are the example's.
#
#   fleet.sh [--nodes N] [--pull SECONDS] …
#
#   COMPOSEFS_CSI_E2E_KUBERNETES   which release
#   PROFILE                        cargo's profile; demo by default
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=common.sh
. scripts/e2e/common.sh

e2e_state=$(mktemp -u /var/tmp/composefs-csi-e2e.XXXXXX)
export COMPOSEFS_CSI_E2E_STATE=$e2e_state
trap 'scripts/e2e/cluster.sh down' EXIT
trap 'exit 130' INT TERM
profile=${PROFILE:-demo}
directory=$profile
[ "$profile" != dev ] || directory=debug
scripts/helm.sh >/dev/null
cargo build --locked --quiet --profile "$profile" --bin composefs-csi --example fleet
# Two connections for each node, here and in the API server.
ulimit -n "$(ulimit -Hn)"
scripts/e2e/cluster.sh up
# Each client would read the machine's authorities, which takes more than a megabyte of memory, and needs none of them.
export SSL_CERT_FILE=/dev/null SSL_CERT_DIR=/nonexistent
scripts/e2e/cluster.sh exec "${CARGO_TARGET_DIR:-$PWD/target}/$directory/examples/fleet" "$@"
