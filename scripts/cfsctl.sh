#!/bin/bash
# Builds composefs-rs's command `cfsctl`, to hold ours against; prints its path.
#
#   scripts/cfsctl.sh [DIR]
#
# DIR defaults to ${XDG_CACHE_HOME:-~/.cache}/composefs-csi/tools/cfsctl-VERSION; the program is DIR/bin/cfsctl.
# It comes from the Rust package registry at the version whose format this project follows, is built once
# (some minutes, at low priority, outside the repository) and never again. Pulling with it needs skopeo.
set -euo pipefail

# The same release as the `composefs` crate in Cargo.toml.
version=0.9.4

say() { echo "cfsctl: $*" >&2; }
die() { say "error: $*"; exit 1; }

[ $# -le 1 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/composefs-csi/tools/cfsctl-$version}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# One at a time: tests of several binaries ask at once.
exec 9>"$dir/.lock"
flock 9
if [ ! -x "$dir/bin/cfsctl" ]; then
    command -v cargo >/dev/null || die "cargo is missing; install the Rust toolchain from https://rustup.rs"
    say "building cfsctl $version; this takes some minutes, once"
    # A target directory of its own: the caller's settings and its build must not meet this one.
    env -u CARGO_TARGET_DIR -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR="$dir/.build" \
        nice -n 19 cargo install --quiet --locked --root "$dir" --version "=$version" composefs-ctl >&2 9>&- \
        || die "cannot build composefs-ctl $version; see cargo's message above (it needs libssl-dev and pkg-config)"
    rm -rf "$dir/.build"
    say "cfsctl is ready in $dir/bin"
fi
echo "$dir/bin/cfsctl"
