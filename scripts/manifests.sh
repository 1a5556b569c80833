#!/bin/bash
# Renders the chart into plain manifests, for clusters without helm.
#
#   scripts/manifests.sh [FILE]
#
# FILE defaults to manifests/composefs-csi.yaml. tests/tools/chart.rs fails where that file is not what this prints.
set -euo pipefail
cd "$(dirname "$0")/.."

[ $# -le 1 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
file=${1:-manifests/composefs-csi.yaml}
helm=$(scripts/helm.sh)
mkdir -p "$(dirname "$file")"
{
    echo "# Rendered from charts/composefs-csi by \`make manifests\`; change the chart, not this file."
    # For the oldest Kubernetes: what only newer ones know is off by default, so this is right for all.
    # The objects are kubectl's, and no release of helm's.
    "$helm" template composefs-csi charts/composefs-csi --namespace composefs-csi --kube-version 1.20.0 \
        --skip-tests --set namespace.create=true \
        | sed -e '/^# Source: /d' -e '/^ *helm\.sh\/chart: /d' \
            -e 's|\(app.kubernetes.io/managed-by\): Helm|\1: kubectl|'
} >"$file.new"
mv "$file.new" "$file"
