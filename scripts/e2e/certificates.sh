#!/bin/bash
# Writes the cluster's authority, its certificates and a kubeconfig for each who needs one, good for a week.
#
#   certificates.sh DIR
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"
[ $# -eq 1 ] || die "usage: certificates.sh DIR"
umask 077
mkdir -p "$1"
cd "$1"

new_key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }

# issue NAME SUBJECT USAGE [ALTERNATIVE-NAMES]
issue() {
    new_key "$1"
    {
        echo "extendedKeyUsage=$3"
        [ $# -lt 4 ] || echo "subjectAltName=$4"
    } >"$1.extensions"
    openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
    openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 7 \
        -extfile "$1.extensions" -out "$1.crt" 2>/dev/null
    rm "$1.csr" "$1.extensions"
}

# The certificates stand in the file itself, so that a copy of it is all that a client needs.
kubeconfig() {
    cat >"$1.kubeconfig" <<CONFIG
apiVersion: v1
kind: Config
clusters:
- name: e2e
  cluster:
    server: https://$node_address:$api_port
    certificate-authority-data: $(base64 -w0 ca.crt)
users:
- name: $1
  user:
    client-certificate-data: $(base64 -w0 "$1.crt")
    client-key-data: $(base64 -w0 "$1.key")
contexts:
- name: e2e
  context: {cluster: e2e, user: $1}
current-context: e2e
CONFIG
}

client() { issue "$1" "$2" clientAuth; kubeconfig "$1"; }

new_key ca
openssl req -x509 -key ca.key -subj /CN=e2e-authority -days 7 -out ca.crt
issue apiserver /CN=kube-apiserver serverAuth \
    "IP:$node_address,IP:$service_address,IP:127.0.0.1,DNS:localhost,DNS:kubernetes,DNS:kubernetes.default.svc"
issue kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client clientAuth
client admin /O=system:masters/CN=admin
client controller-manager /CN=system:kube-controller-manager
client scheduler /CN=system:kube-scheduler
client kubelet "/O=system:nodes/CN=system:node:$node_name"
new_key service-account
