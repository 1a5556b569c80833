#!/bin/bash
# Writes a container image of one layer as a docker archive, which containerd, podman, docker and kind load.
#
#   image.sh FILE NAME:TAG ROOT ENTRYPOINT-JSON
#
# The same files give the same image: owners and times are the same everywhere.
set -euo pipefail
[ $# -eq 4 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
file=$1 name=$2 root=$3 entrypoint=$4

work=$(mktemp -d "$file.XXXXXX")
trap 'rm -rf "$work"' EXIT
tar --sort=name --format=gnu --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$root" -cf "$work/layer.tar" .
layer=$(sha256sum <"$work/layer.tar")
case "$(uname -m)" in
    x86_64)  architecture=amd64 ;;
    aarch64) architecture=arm64 ;;
    *)       architecture=$(uname -m) ;;
esac
cat >"$work/config.json" <<JSON
{"architecture": "$architecture", "os": "linux", "created": "1970-01-01T00:00:00Z",
 "config": {"Entrypoint": $entrypoint, "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:${layer%% *}"]}, "history": [{"created": "1970-01-01T00:00:00Z"}]}
JSON
cat >"$work/manifest.json" <<JSON
[{"Config": "config.json", "RepoTags": ["$name"], "Layers": ["layer.tar"]}]
JSON
tar --owner=0 --group=0 --mtime=@0 -C "$work" -cf "$work/archive" manifest.json config.json layer.tar
mv "$work/archive" "$file"
