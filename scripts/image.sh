#!/bin/bash
# Builds the container image with buildah, or docker where there is no buildah. See `make image`.
#
#   scripts/image.sh
#
#   IMAGE     its name; localhost/composefs-csi:VERSION by default
#   ARCH      amd64 or arm64; the machine's own by default
#   PROFILE   cargo's profile; release by default
#   ARCHIVE   a file to write the image to as well, for `ctr images import` or `skopeo copy`
#
# The program is compiled by this machine's Rust, by the script that the Dockerfile's builder stage runs, and
# then takes that stage's place: quicker than a build in a container, and no base image is needed.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "image: $*"; }
die() { echo "image: error: $*" >&2; exit 1; }

[ $# -eq 0 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
image=${IMAGE:-localhost/composefs-csi:$version}
arch=${ARCH:-$(dpkg --print-architecture)}
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
root=${CARGO_TARGET_DIR:-target}/image/$arch

ARCH=$arch scripts/image-root.sh "$root/out"
options=(--file Dockerfile --platform "linux/$arch" --build-context "builder=$root"
    --build-arg "VERSION=$version" --build-arg "REVISION=$revision" --tag "$image")
if command -v buildah >/dev/null; then
    buildah build --quiet --layers=false "${options[@]}" . >/dev/null
    if [ -n "${ARCHIVE:-}" ]; then
        rm -f "$ARCHIVE"
        buildah push --quiet "$image" "docker-archive:$ARCHIVE:$image"
    fi
elif docker info >/dev/null 2>&1; then
    docker buildx build --quiet --load "${options[@]}" . >/dev/null
    if [ -n "${ARCHIVE:-}" ]; then docker save --output "$ARCHIVE" "$image"; fi
else
    die "neither buildah nor a docker that answers is here; install buildah"
fi
say "$image for $arch is ready${ARCHIVE:+, also in $ARCHIVE}"
