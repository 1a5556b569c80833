#!/bin/bash
# Makes what the container image holds: the program, statically linked, the certificate authorities of the
# web, and the names of two users. The Dockerfile's builder stage runs this, and so does `make image`.
#
#   scripts/image-root.sh DIR
#
#   ARCH      amd64 or arm64, the image's architecture; the machine's own by default
#   PROFILE   cargo's profile; release by default
#
# Why glibc and not musl, and what a static glibc must not be asked: docs/adr/0008-static-program-on-glibc.md.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "image: $*" >&2; }
die() { say "error: $*"; exit 1; }

[ $# -eq 1 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
dir=$1
profile=${PROFILE:-release}
own=$(dpkg --print-architecture)
arch=${ARCH:-$own}
case "$arch" in
    amd64) triple=x86_64-unknown-linux-gnu gnu=x86_64-linux-gnu ;;
    arm64) triple=aarch64-unknown-linux-gnu gnu=aarch64-linux-gnu ;;
    *) die "architecture '$arch' is not amd64 or arm64" ;;
esac

authorities=/etc/ssl/certs/ca-certificates.crt
[ -s "$authorities" ] || die "$authorities is missing; install ca-certificates"
[ -s "/usr/lib/$gnu/libssl.a" ] || die "/usr/lib/$gnu/libssl.a is missing; install libssl-dev:$arch"
name=${triple^^}; name=${name//-/_}
if [ "$arch" != "$own" ]; then
    command -v "$gnu-gcc" >/dev/null || die "$gnu-gcc is missing; install gcc-${gnu//_/-} and libc6-dev:$arch"
    export "CARGO_TARGET_${name}_LINKER=$gnu-gcc" "CC_${triple//-/_}=$gnu-gcc" "AR_${triple//-/_}=$gnu-ar"
fi
# OpenSSL by its place: pkg-config would have to be told of the other architecture.
export "${name}_OPENSSL_LIB_DIR=/usr/lib/$gnu" "${name}_OPENSSL_INCLUDE_DIR=/usr/include"
export "${name}_OPENSSL_STATIC=1"

say "building composefs-csi for $arch (profile $profile)"
# With --target, these flags are for the program and not for what the compiler itself loads.
export "CARGO_TARGET_${name}_RUSTFLAGS=-C target-feature=+crt-static"
# Packed relocations: 3 MB less that each start would read and keep resident. Debian's linker has them for amd64 only.
link=()
[ "$arch" != amd64 ] || link=(-- -C link-arg=-Wl,-z,pack-relative-relocs)
cargo rustc --locked --profile "$profile" --target "$triple" --bin composefs-csi "${link[@]}"
[ "$profile" != dev ] || profile=debug
program=${CARGO_TARGET_DIR:-target}/$triple/$profile/composefs-csi

rm -rf "$dir"
mkdir -p "$dir"/{usr/bin,etc/ssl/certs}
strip='strip'
[ "$arch" = "$own" ] || strip=$gnu-strip
"$strip" -o "$dir/usr/bin/composefs-csi" "$program"
# A program with an interpreter would start nowhere in this image.
if readelf -l "$dir/usr/bin/composefs-csi" | grep -q INTERP; then die "the program is not static"; fi
install -m 0644 "$authorities" "$dir/etc/ssl/certs/ca-certificates.crt"
printf '%s\n' 'root:x:0:0:root:/:/nonexistent' 'nonroot:x:65532:65532:nonroot:/:/nonexistent' >"$dir/etc/passwd"
printf '%s\n' 'root:x:0:' 'nonroot:x:65532:' >"$dir/etc/group"
say "$(du -h "$dir/usr/bin/composefs-csi" | cut -f1) program in $dir"
