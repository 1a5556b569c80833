#!/bin/bash
# The node of the end-to-end cluster; cluster.sh calls it, in three steps that are one process:
#
#   node.sh enter PROGRAMS ROOT   joins cgroups of its own and unshares the namespaces
#   node.sh root PROGRAMS ROOT    makes the node's root filesystem of Debian's packages (ROOT) and goes there
#   node.sh init                  starts the programs and ends when the first of them does
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

# Cgroup v1, one line per hierarchy: controllers and the path of this process.
hierarchies() { awk -F: '$2 != "" { print $2, $3 }' /proc/self/cgroup; }

enter() {
    local controllers path group file
    [ -n "$(hierarchies)" ] || die "this machine has no cgroup v1 hierarchy, which this setup needs"
    while read -r controllers path; do
        group=/sys/fs/cgroup/${controllers#name=}${path%/}/composefs-csi-e2e.$$
        mkdir "$group"
        echo "$group" >>"$e2e_state/cgroups"
        # A cpuset is born empty, and an empty one takes no process.
        for file in cpus mems; do
            [ ! -e "$group/cpuset.$file" ] || cat "${group%/*}/cpuset.$file" >"$group/cpuset.$file"
        done
        echo $$ >"$group/cgroup.procs"
    done < <(hierarchies)
    exec unshare --mount --pid --net --cgroup --ipc --uts --fork "$0" root "$@"
}

root() {
    local programs=$1 packages=$2 new=$e2e_state/root pid rest started name controllers at
    # This is still the machine's /proc, so this is the number that the machine knows us by.
    read -r pid rest </proc/self/stat
    started=$(awk '{ print $22 }' "/proc/$pid/stat")
    mount --bind "$new" "$new"
    cd "$new"
    mkdir -p usr dev proc sys run tmp root opt/e2e opt/cni var/lib/kubelet var/log etc/kubernetes
    chmod 1777 tmp
    for name in bin sbin lib lib64; do ln -s "usr/$name" "$name"; done
    cp -a "$packages/etc/." etc/
    cp "$(dirname "$0")/node.sh" "$(dirname "$0")/common.sh" opt/e2e/
    cp -a "$e2e_state/pki/." etc/kubernetes/
    mkdir opt/e2e/bin
    mount --bind "$packages/usr" usr && mount -o remount,bind,ro usr
    mount --bind "$programs" opt/e2e/bin && mount -o remount,bind,ro opt/e2e/bin
    mount --rbind /dev dev
    mount -t proc proc proc
    # A second one, of which nothing is covered (see hide_sysctls): without it the kernel lets no user namespace have its own.
    mkdir opt/e2e/proc
    mount -t proc proc opt/e2e/proc
    mount -t sysfs sysfs sys
    mount -t tmpfs -o mode=0755 tmpfs run
    mkdir run/log
    mount --bind "$e2e_state/log" run/log
    mount -t tmpfs -o mode=0755 tmpfs sys/fs/cgroup
    while read -r controllers _; do
        at=sys/fs/cgroup/${controllers#name=}
        mkdir "$at"
        mount -t cgroup -o "$controllers" cgroup "$at"
    done < <(hierarchies)
    mkdir opt/old
    pivot_root . opt/old
    # Known from here on to whoever waits for it, by the old root, which goes now.
    echo "$pid $started" >"opt/old$e2e_state/pid"
    umount -l /opt/old
    rmdir /opt/old
    # Kubelet's directory must be shared for mounts that a container propagates to it.
    mount --make-rshared /
    exec /usr/bin/env -i HOME=/root COMPOSEFS_CSI_E2E_KUBERNETES="$e2e_kubernetes" PATH=/opt/e2e/bin:/usr/sbin:/usr/bin /usr/bin/bash /opt/e2e/node.sh init
}

# Kubelet insists on kernel settings that are the whole machine's: it gets files of its own to write them to.
hide_sysctls() {
    local setting
    mkdir /run/sysctl
    for setting in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops \
        kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
        mkdir -p "/run/sysctl/${setting%/*}"
        cat "/proc/sys/$setting" >"/run/sysctl/$setting"
        mount --bind "/run/sysctl/$setting" "/proc/sys/$setting"
    done
}

network() {
    echo "$node_name" >/proc/sys/kernel/hostname
    ip link set lo up
    ip link add node0 type bridge
    ip address add "$node_address/32" dev node0
    ip link set node0 up
    ip route add "$service_network" dev node0
    echo 1 >/proc/sys/net/ipv4/ip_forward
    # No kube-proxy: the one service that everything needs is the API server's.
    local chain
    for chain in PREROUTING OUTPUT; do
        iptables-nft -t nat -A "$chain" -d "$service_address" -p tcp --dport 443 \
            -j DNAT --to-destination "$node_address:$api_port"
    done
    mkdir -p /etc/cni/net.d
    cat >/etc/cni/net.d/10-e2e.conflist <<CONFIG
{"cniVersion": "0.4.0", "name": "e2e", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "$pod_network"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
CONFIG
}

configure() {
    printf '127.0.0.1 localhost\n%s %s\n' "$node_address" "$node_name" >/etc/hosts
    : >/etc/resolv.conf
    # Kubelet looks for a user of its name, whose ids pods with user namespaces would get.
    [ -e /etc/passwd ] || echo 'root:x:0:0:root:/root:/bin/bash' >/etc/passwd
    tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
    mkdir -p /etc/alternatives
    ln -sf /usr/sbin/iptables-nft /etc/alternatives/iptables
    ln -sf /usr/sbin/ip6tables-nft /etc/alternatives/ip6tables
    mkdir -p /etc/containerd
    # Score adjustments below our own and AppArmor profiles are for whoever owns the machine.
    cat >/etc/containerd/config.toml <<'CONFIG'
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "e2e.local/pause:1"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
CONFIG
    cat >/etc/kubernetes/kubelet.yaml <<CONFIG
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: /etc/kubernetes/ca.crt}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
failSwapOn: false
maxPods: 110
# This machine's disk is nobody's to clean.
evictionHard: {nodefs.available: "0%", imagefs.available: "0%", nodefs.inodesFree: "0%", memory.available: 50Mi}
imageGCHighThresholdPercent: 100
# Nobody answers there, and no test asks; without it every pod would get a warning Event.
clusterDNS: [10.96.0.10]
resolvConf: /etc/resolv.conf
syncFrequency: 10s
CONFIG
    # It would rather not run on cgroup v1, and makes a directory in /usr.
    [ "$e2e_kubernetes" = 1.20 ] || cat >>/etc/kubernetes/kubelet.yaml <<CONFIG
failCgroupV1: false
volumePluginDir: /var/lib/kubelet/volumeplugins
CONFIG
}

# run NAME PROGRAM ARGUMENT…
run() {
    local name=$1; shift
    "$@" >"/run/log/$name.log" 2>&1 </dev/null &
    names[$!]=$name
}

init() {
    declare -A names
    local pki=/etc/kubernetes status=0 ended gates=() runtime=()
    # What is on by itself in later releases, and is no flag any more.
    if [ "$e2e_kubernetes" = 1.20 ]; then
        gates=(--feature-gates CSIServiceAccountToken=true)
        runtime=(--container-runtime remote)
    fi
    mkdir -p /run/etcd
    hide_sysctls
    configure
    network
    # In memory: this cluster lives for minutes.
    run etcd etcd --data-dir /run/etcd/data --listen-client-urls http://127.0.0.1:2379 \
        --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
    run containerd containerd
    run kube-apiserver kube-apiserver --etcd-servers http://127.0.0.1:2379 --advertise-address "$node_address" \
        --secure-port "$api_port" --client-ca-file $pki/ca.crt --service-cluster-ip-range "$service_network" \
        --tls-cert-file $pki/apiserver.crt --tls-private-key-file $pki/apiserver.key \
        --kubelet-client-certificate $pki/kubelet-client.crt --kubelet-client-key $pki/kubelet-client.key \
        --kubelet-preferred-address-types InternalIP --authorization-mode Node,RBAC --allow-privileged=true \
        --service-account-issuer https://kubernetes.default.svc --service-account-key-file $pki/service-account.key \
        --service-account-signing-key-file $pki/service-account.key "${gates[@]}"
    run kube-controller-manager kube-controller-manager --kubeconfig $pki/controller-manager.kubeconfig \
        --root-ca-file $pki/ca.crt --service-account-private-key-file $pki/service-account.key \
        --use-service-account-credentials --leader-elect=false
    run kube-scheduler kube-scheduler --kubeconfig $pki/scheduler.kubeconfig --leader-elect=false
    run kubelet kubelet --config $pki/kubelet.yaml --kubeconfig $pki/kubelet.kubeconfig --node-ip "$node_address" \
        --hostname-override "$node_name" "${runtime[@]}" "${gates[@]}" \
        --container-runtime-endpoint unix:///run/containerd/containerd.sock --cert-dir /run/kubelet-pki
    # The first to end ends the node, and with it the cluster: a test must not go on without a part of it.
    wait -n -p ended || status=$?
    say "${names[$ended]:-a process} has ended with status $status: $(tail -n 2 "/run/log/${names[$ended]}.log")"
    exit 1
}

command=$1; shift
"$command" "$@"
