#!/bin/bash
# A release on this machine, by the scripts that .github/workflows/release.yaml runs: the image of this architecture,
# its bill of materials, chart, notes and checksums; then a push to a registry on loopback, signed by a key that is made
# for it; then what RELEASE.md tells users to verify. See `make release-dry-run`.
#
#   scripts/release/dry-run.sh
#
#   PROFILE   cargo's profile; release by default. The others are quicker
#
# What only the workflow has: the other architecture, keyless signatures with their transparency log, provenance, and
# the release's page. The files stay in target/release-files.
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { echo "dry-run: $*"; }
die() { echo "dry-run: error: $*" >&2; exit 1; }

[ $# -eq 0 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
dir=${CARGO_TARGET_DIR:-target}/release-files
work=$(mktemp -d)
registry=''
finish() {
    [ -z "$registry" ] || kill "$registry" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

# Debian's cosign; its state and its configuration are of this run alone.
PATH=$(scripts/debian-tools.sh cosign)/bin:$PATH
export PATH DOCKER_CONFIG=$work/docker COSIGN_PASSWORD='' TUF_ROOT=$work/tuf
mkdir "$DOCKER_CONFIG"
echo '{}' >"$DOCKER_CONFIG/config.json"

version=$(scripts/release/check.sh)
rm -rf "$dir"
say "building $version"
scripts/release/image.sh "$dir"
scripts/release/package.sh "$dir"

mkdir "$work/registry"
printf '%s\n' 'version: 0.1' "storage: {filesystem: {rootdirectory: $work/registry}}" 'http: {addr: "127.0.0.1:0"}' \
    >"$work/registry.yaml"
docker-registry serve "$work/registry.yaml" >"$work/registry.log" 2>&1 &
registry=$!
address=''
for _ in $(seq 100); do
    address=$(sed -n 's/.*listening on \(127\.0\.0\.1:[0-9]*\).*/\1/p' "$work/registry.log" | head -n 1)
    [ -z "$address" ] || break
    kill -0 "$registry" 2>/dev/null || die "the registry does not run: $(cat "$work/registry.log")"
    sleep 0.1
done
[ -n "$address" ] || die "the registry has said nothing in 10 s: $(cat "$work/registry.log")"

(cd "$work" && cosign generate-key-pair 2>/dev/null)
say "publishing to a registry of this run, $address"
PLAIN_HTTP=1 SIGN_KEY=$work/cosign.key scripts/release/publish.sh "$dir" "$address/composefs-csi" >"$work/published"
# image, image_digest, chart, chart_digest
# shellcheck disable=SC1091
. "$work/published"

say "verifying as a user would"
cd "$dir"
# What the key signed is in no log, which a user's command does not have to say.
verify=(--key "$work/cosign.pub" --insecure-ignore-tlog --allow-http-registry)
# shellcheck disable=SC2154  # the names in that file
{
    sha256sum --quiet --check SHA256SUMS
    cosign verify-blob "${verify[@]:0:3}" --bundle SHA256SUMS.sigstore.json SHA256SUMS 2>"$work/log" \
        || die "SHA256SUMS: $(cat "$work/log")"
    for what in "$image@$image_digest" "$chart@$chart_digest"; do
        cosign verify "${verify[@]}" "$what" >/dev/null 2>"$work/log" || die "$what: $(cat "$work/log")"
    done
    skopeo inspect --tls-verify=false --raw "docker://$image:$version" >"$work/index"
    for digest in $(jq -r '.manifests[].digest' "$work/index"); do
        cosign verify-attestation "${verify[@]}" --type cyclonedx "$image@$digest" >/dev/null 2>"$work/log" \
            || die "the bill of materials of $digest: $(cat "$work/log")"
    done
}
cd "$OLDPWD"
"$(scripts/helm.sh)" pull "oci://$address/composefs-csi/charts/composefs-csi" --version "$version" --plain-http \
    --destination "$work" >/dev/null 2>&1
cmp "$work/composefs-csi-$version.tgz" "$dir/composefs-csi-$version.tgz"
platforms=$(jq -r '[.manifests[].platform | "\(.os)/\(.architecture)"] | join(", ")' "$work/index")
say "$version for $platforms is built, pushed, signed and verified; the files are in $dir"
