#!/bin/bash
# Writes the bill of materials of the image of one architecture, in CycloneDX's format.
#
#   scripts/release/sbom.sh FILE
#
#   ARCH   amd64 or arm64; the machine's own by default
#
# The crates come from cargo-cyclonedx, the CycloneDX project's own tool: it asks cargo what is linked for this target,
# where a scanner of images would have to guess from a stripped static program. What Debian's packages bring into that
# program and beside it is added from dpkg. The tool is built once into
# ${XDG_CACHE_HOME:-~/.cache}/composefs-csi/tools/cargo-cyclonedx-VERSION.
set -euo pipefail
cd "$(dirname "$0")/../.."

cyclonedx=0.5.9

say() { echo "sbom: $*" >&2; }
die() { say "error: $*"; exit 1; }

[ $# -eq 1 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
file=$1
arch=${ARCH:-$(dpkg --print-architecture)}
case "$arch" in
    amd64) target=x86_64-unknown-linux-gnu ;;
    arm64) target=aarch64-unknown-linux-gnu ;;
    *) die "architecture '$arch' is not amd64 or arm64" ;;
esac
command -v jq >/dev/null || die "jq is missing; run: scripts/setup.sh release"

tool=${XDG_CACHE_HOME:-$HOME/.cache}/composefs-csi/tools/cargo-cyclonedx-$cyclonedx
mkdir -p "$tool"
exec 9>"$tool/.lock"
flock 9
if [ ! -x "$tool/bin/cargo-cyclonedx" ]; then
    say "building cargo-cyclonedx $cyclonedx; this takes some minutes, once"
    # A target directory of its own: the caller's settings and its build must not meet this one.
    env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR="$tool/.build" CARGO_PROFILE_DEV_DEBUG=0 \
        nice -n 19 cargo install --quiet --locked --debug --root "$tool" --version "=$cyclonedx" cargo-cyclonedx \
        >&2 9>&- || die "cannot build cargo-cyclonedx $cyclonedx; see cargo's message above"
    rm -rf "$tool/.build"
fi

# It writes beside Cargo.toml and knows no other place.
crates=.composefs-csi-sbom
trap 'rm -f "$crates.json"' EXIT
# No time and no random serial number: the same sources give the same document.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 0)
export SOURCE_DATE_EPOCH
"$tool/bin/cargo-cyclonedx" cyclonedx --quiet --format json --spec-version 1.5 --target "$target" --no-build-deps \
    --override-filename "$crates"

# One line of JSON for a package of Debian (or Ubuntu), by its source: advisories go by that.
# shellcheck disable=SC1091
distribution=$(. /etc/os-release && echo "$ID")
package() {
    local found
    # shellcheck disable=SC2016  # dpkg's own placeholders
    found=$(dpkg-query --show --showformat '${source:Package} ${source:Version}\n' "$1" 2>/dev/null) \
        || die "dpkg knows no package $1, which is linked into the program"
    jq -nc --arg name "${found% *}" --arg version "${found#* }" --arg arch "$arch" --arg distribution "$distribution" \
        '{type: "library", name: $name, version: $version,
          purl: "pkg:deb/\($distribution)/\($name)@\($version | @uri)?arch=source"} | ."bom-ref" = .purl'
}
{
    package "libssl-dev:$arch"
    # A cross compiler has the other architecture's libc in a package of this one.
    if [ "$arch" = "$(dpkg --print-architecture)" ]; then package libc6-dev; else package "libc6-dev-$arch-cross"; fi
    package ca-certificates
} | jq --slurp --slurpfile crates "$crates.json" '. as $packages | $crates[0] | .components += $packages
        # Nobody needs to know the directory that this was built in.
        | walk(if type == "string" then sub("^path\\+file://[^#]*#"; "") else . end)' >"$file"
say "$(jq '.components | length' "$file") components in $file"
