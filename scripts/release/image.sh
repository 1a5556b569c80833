#!/bin/bash
# Builds what a release has of one architecture.
#
#   scripts/release/image.sh DIR
#
# DIR gets composefs-csi-VERSION-linux-ARCH.tar, the image as an archive for `docker load`, `podman load` and
# `ctr images import`, and composefs-csi-VERSION-linux-ARCH.cdx.json, its bill of materials. ARCH and PROFILE are those
# of scripts/image.sh.
set -euo pipefail
cd "$(dirname "$0")/../.."

[ $# -eq 1 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
mkdir -p "$1"
dir=$(cd "$1" && pwd)
version=$(scripts/release/check.sh)
arch=${ARCH:-$(dpkg --print-architecture)}
name=$dir/composefs-csi-$version-linux-$arch

ARCH=$arch scripts/release/sbom.sh "$name.cdx.json"
ARCH=$arch IMAGE=localhost/composefs-csi:$version ARCHIVE=$name.tar scripts/image.sh
