#!/bin/bash
# A Kubernetes cluster of one node on this machine, out of its way: etcd, the control plane, containerd and kubelet
# in private mount, pid, network, cgroup, IPC and UTS namespaces, on a root filesystem of Debian packages.
#
#   cluster.sh up              builds what is missing, starts the cluster, waits until its node is ready
#   cluster.sh exec COMMAND…   runs a command of this machine in the cluster's network, with KUBECONFIG and PATH set
#   cluster.sh import FILE…    loads images (docker archives) into the node's containerd
#   cluster.sh shell [COMMAND] a shell, or a command, on the node itself
#   cluster.sh env             prints the settings of exec, to be evaluated by a shell
#   cluster.sh down            ends it; no process, mount, interface, cgroup or file of it stays
#
# The cluster's files are in COMPOSEFS_CSI_E2E_STATE (default /var/tmp/composefs-csi-e2e), its logs in log/ there.
# COMPOSEFS_CSI_E2E_KUBERNETES says which release `up` starts: 1.20 (the default) or 1.36. Needs root and cgroup v1.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"

usage() { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

# The node's first process, as this machine numbers it; empty when there is none. The start time tells it from
# a later process of the same number.
node_pid() {
    local pid started
    read -r pid started 2>/dev/null <"$e2e_state/pid" || return 0
    [ "$(awk '{ print $22 }' "/proc/$pid/stat" 2>/dev/null)" != "$started" ] || echo "$pid"
}

running() {
    pid=$(node_pid)
    [ -n "$pid" ] || die "no cluster is running in $e2e_state; run: scripts/e2e/cluster.sh up"
}

up() {
    [ -z "$(node_pid)" ] || die "a cluster is running in $e2e_state; run: scripts/e2e/cluster.sh down"
    need openssl; need unshare; need nsenter
    known_release
    local built node
    built=$("$here/build.sh")
    node=$("$here/../debian-tools.sh" "$(node_packages)")
    [ ! -e "$e2e_state" ] || down
    mkdir -m 0755 "$e2e_state"
    mkdir "$e2e_state/log"
    echo "$e2e_kubernetes" >"$e2e_state/release"
    "$here/certificates.sh" "$e2e_state/pki"
    mkdir "$e2e_state/root"
    # In a session of its own: a signal to the caller's terminal must not end it.
    setsid "$here/node.sh" enter "$(kubernetes_programs)" "$node/root" </dev/null >"$e2e_state/log/node.log" 2>&1 &
    disown
    trap 'say "the cluster did not start; its logs are in $e2e_state/log, remove it by: scripts/e2e/cluster.sh down"' EXIT
    wait_until 30 "the node's first process" test -s "$e2e_state/pid"
    wait_until 120 "the API server" kubectl get --raw /readyz
    wait_until 120 "the node" ready
    wait_until 60 "the default service account" kubectl -n default get serviceaccount default
    "$0" import "$built"/images/*.tar
    trap - EXIT
    say "the cluster is ready; its files are in $e2e_state"
}

kubectl() { "$0" exec kubectl "$@"; }
ready() { kubectl get node "$node_name" -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' | grep -q True; }

# wait_until SECONDS WHAT COMMAND…: the first process of the node ends when a part of the cluster does.
wait_until() {
    local end=$((SECONDS + $1)) what=$2; shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || die "$what is not there in time; see $e2e_state/log"
        [ ! -s "$e2e_state/pid" ] || [ -n "$(node_pid)" ] || die "the node has ended: $(tail -n 3 "$e2e_state/log/node.log")"
        sleep 0.5
    done
}

settings() {
    # That which runs, whatever the caller would start.
    e2e_kubernetes=$(cat "$e2e_state/release")
    echo "export KUBECONFIG=$e2e_state/pki/admin.kubeconfig"
    echo "export COMPOSEFS_CSI_E2E_VALUES=$here/values.yaml"
    echo "export COMPOSEFS_CSI_E2E_TOOLS_IMAGE=e2e.local/tools:1 COMPOSEFS_CSI_E2E_REGISTRY_IMAGE=e2e.local/registry:1"
    echo "export PATH=$(kubernetes_programs):$(dirname "$("$here/../helm.sh")"):$PATH"
}

down() {
    local pid path deadline=$((SECONDS + 60))
    pid=$(node_pid)
    # The end of its first process ends every process of a pid namespace, and with them the other namespaces.
    [ -z "$pid" ] || kill -KILL "$pid"
    while [ -n "$(node_pid)" ]; do
        [ $SECONDS -lt $deadline ] || die "process $pid does not end"
        sleep 0.1
    done
    if [ -e "$e2e_state/cgroups" ]; then
        while read -r path; do
            # A cgroup can go when its last process has been reaped, which takes a moment.
            until find "$path" -depth -type d -exec rmdir {} + 2>/dev/null || [ ! -e "$path" ]; do
                [ $SECONDS -lt $deadline ] || die "cgroup $path does not go: $(cat "$path/cgroup.procs" | wc -l) processes"
                sleep 0.1
            done
        done <"$e2e_state/cgroups"
    fi
    rm -rf --one-file-system "$e2e_state"
}

main() {
    [ $# -ge 1 ] || usage
    local command=$1; shift
    [ "$(id -u)" -eq 0 ] || exec "$here/../as-root.sh" "$0" "$command" "$@"
    case "$command" in
        up)     up ;;
        down)   down ;;
        env)    running; settings ;;
        exec)   running; eval "$(settings)"; exec nsenter --net="/proc/$pid/ns/net" -- "$@" ;;
        shell)  running; [ $# -gt 0 ] || set -- /bin/bash
                exec nsenter --all --target "$pid" -- /usr/bin/env -i "TERM=${TERM:-dumb}" \
                    PATH=/opt/e2e/bin:/usr/sbin:/usr/bin KUBECONFIG=/etc/kubernetes/admin.kubeconfig "$@" ;;
        import) running
                local file
                for file in "$@"; do "$0" shell ctr -n k8s.io images import - <"$file" >/dev/null; done ;;
        *)      usage ;;
    esac
}

main "$@"
