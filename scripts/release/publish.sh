#!/bin/bash
# Pushes image and chart of DIR (scripts/release/package.sh) to a registry and signs them.
#
#   scripts/release/publish.sh DIR REGISTRY
#
# REGISTRY is a host and a path: ghcr.io/composefs-csi. The image becomes REGISTRY/composefs-csi:VERSION, the chart
# REGISTRY/charts/composefs-csi:VERSION. Whoever runs this is logged in there (`docker login`).
#
#   SIGN_KEY     cosign's private key in a file. Without: keyless, by the identity of the workflow that runs this
#   PLAIN_HTTP   set: the registry speaks no TLS
#
# Prints lines NAME=VALUE for a workflow's outputs: image, image_digest, chart, chart_digest.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { echo "release: $*" >&2; }
die() { say "error: $*"; exit 1; }

[ $# -eq 2 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
dir=$(cd "$1" && pwd)
registry=${2%/}
for tool in skopeo jq cosign; do
    command -v "$tool" >/dev/null || die "$tool is missing; RELEASE.md says what a release needs"
done
version=$(scripts/release/check.sh)
helm=$(scripts/helm.sh)
(cd "$dir" && sha256sum --quiet --check SHA256SUMS) || die "the files in $dir are not those that were packaged"

# What differs between a dry run and a release: how to reach the registry, and who signs.
skopeo_options=(--quiet --all --preserve-digests) helm_options=() cosign_options=(--yes) registry_options=()
if [ -n "${PLAIN_HTTP:-}" ]; then
    skopeo_options+=(--dest-tls-verify=false)
    helm_options+=(--plain-http)
    registry_options+=(--allow-http-registry)
fi
# A key of one's own is in no transparency log.
if [ -n "${SIGN_KEY:-}" ]; then cosign_options+=(--key "$SIGN_KEY" --use-signing-config=false --tlog-upload=false); fi

image=$registry/composefs-csi
image_digest=$(jq -r '.manifests[0].digest' "$dir/image/index.json")
say "pushing $image:$version"
skopeo copy "${skopeo_options[@]}" "oci:$dir/image:$version" "docker://$image:$version"
say "pushing $registry/charts/composefs-csi:$version"
pushed=$("$helm" push "${helm_options[@]}" "$dir/composefs-csi-$version.tgz" "oci://$registry/charts" 2>&1)
chart=$registry/charts/composefs-csi
chart_digest=$(sed -n 's/^Digest: *//p' <<<"$pushed")
[ -n "$chart_digest" ] || die "helm names no digest: $pushed"

say "signing"
# Every architecture as well: a node may name one.
cosign sign "${cosign_options[@]}" "${registry_options[@]}" --recursive "$image@$image_digest" >&2
cosign sign "${cosign_options[@]}" "${registry_options[@]}" "$chart@$chart_digest" >&2
jq -r '.manifests[] | "\(.platform.architecture) \(.digest)"' "$dir/image/blobs/sha256/${image_digest#sha256:}" \
    | while read -r arch digest; do
        cosign attest "${cosign_options[@]}" "${registry_options[@]}" --type cyclonedx \
            --predicate "$dir/composefs-csi-$version-linux-$arch.cdx.json" "$image@$digest" </dev/null >&2
    done
cosign sign-blob "${cosign_options[@]}" --bundle "$dir/SHA256SUMS.sigstore.json" "$dir/SHA256SUMS" >/dev/null

printf '%s\n' "image=$image" "image_digest=$image_digest" "chart=$chart" "chart_digest=$chart_digest"
