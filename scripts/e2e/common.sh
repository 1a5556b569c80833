# What the scripts of the end-to-end cluster share; sourced, not run.
# shellcheck shell=bash

# shellcheck disable=SC2034  # for those that read this
# The cache outlives the checkout: it holds what is built once.
e2e_cache=${COMPOSEFS_CSI_E2E_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/composefs-csi/e2e}
# Everything of one running cluster: its node's files, logs, certificates. On a disk where /tmp may be memory.
e2e_state=${COMPOSEFS_CSI_E2E_STATE:-/var/tmp/composefs-csi-e2e}

# The release of Kubernetes that is built, and that the next cluster runs.
e2e_kubernetes=${COMPOSEFS_CSI_E2E_KUBERNETES:-1.20}

# Addresses of the node's private network. Nothing of it is seen outside its namespace.
node_name=e2e-node
node_address=10.100.0.1
service_network=10.96.0.0/16
service_address=10.96.0.1
pod_network=10.244.0.0/24
api_port=6443

say() { echo "e2e: $*" >&2; }
die() { say "error: $*"; exit 1; }
known_release() {
    case "$e2e_kubernetes" in
        1.20|1.36) ;;
        *) die "COMPOSEFS_CSI_E2E_KUBERNETES is $e2e_kubernetes; this machine can build 1.20 and 1.36" ;;
    esac
}
# The directory of that release's programs.
# shellcheck disable=SC2329  # for those that read this
kubernetes_programs() { echo "$e2e_cache/kubernetes-$e2e_kubernetes"; }
# Debian's packages for its node, a set of debian-tools.sh.
# shellcheck disable=SC2329
node_packages() { if [ "$e2e_kubernetes" = 1.20 ]; then echo node; else echo node-sid; fi; }
need() { command -v "$1" >/dev/null || die "$1 is missing; run: scripts/setup.sh e2e"; }
