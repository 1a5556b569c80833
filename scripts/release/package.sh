#!/bin/bash
# Adds to the archives and bills of materials in DIR (scripts/release/image.sh) what else a release has: the chart, the
# image of all architectures as an OCI layout, the notes, and the checksums of what users download.
#
#   scripts/release/package.sh DIR
#
# Prints nothing on standard output. DIR/image is the layout; notes.md and the files in SHA256SUMS are for the release's
# page.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { echo "release: $*" >&2; }
die() { say "error: $*"; exit 1; }

[ $# -eq 1 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
dir=$(cd "$1" && pwd)
for tool in skopeo jq; do
    command -v "$tool" >/dev/null || die "$tool is missing; run: scripts/setup.sh release"
done
version=$(scripts/release/check.sh)

# An image for each archive, and one index over them.
layout=$dir/image
rm -rf "$layout"
blob() { sha256sum "$1" | cut -d' ' -f1; }
for archive in "$dir/composefs-csi-$version-linux-"*.tar; do
    [ -e "$archive" ] || die "there is no image in $dir; run: scripts/release/image.sh $dir"
    arch=${archive##*-}; arch=${arch%.tar}
    skopeo copy --quiet "docker-archive:$archive" "oci:$layout:$arch"
done
jq '{schemaVersion: 2, mediaType: "application/vnd.oci.image.index.v1+json",
     manifests: [.manifests[] | {mediaType, digest, size,
        platform: {os: "linux", architecture: .annotations["org.opencontainers.image.ref.name"]}}]}' \
    "$layout/index.json" >"$layout/new"
index=$(blob "$layout/new")
size=$(stat --format %s "$layout/new")
mv "$layout/new" "$layout/blobs/sha256/$index"
jq -n --arg index "sha256:$index" --argjson size "$size" --arg version "$version" \
    '{schemaVersion: 2, manifests: [{mediaType: "application/vnd.oci.image.index.v1+json", digest: $index, size: $size,
        annotations: {"org.opencontainers.image.ref.name": $version}}]}' >"$layout/index.json"

helm=$(scripts/helm.sh)
"$helm" lint --quiet charts/composefs-csi >&2
"$helm" package charts/composefs-csi --destination "$dir" >&2
cp manifests/composefs-csi.yaml "$dir/composefs-csi-$version.yaml"

{
    scripts/release/notes.sh "$version" 2>/dev/null || scripts/release/notes.sh Unreleased
    printf '\nImage: `composefs-csi:%s@sha256:%s`. RELEASE.md says how to verify image, chart and files.\n' "$version" "$index"
} >"$dir/notes.md"
(cd "$dir" && sha256sum "composefs-csi-$version"* >SHA256SUMS)
say "$(wc -l <"$dir/SHA256SUMS") files and the image sha256:$index in $dir"
