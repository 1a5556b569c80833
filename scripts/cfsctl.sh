#!/bin/bash
# Builds composefs-rs's command `cfsctl`, to hold ours against; prints its path.
#
#   scripts/cfsctl.sh [release|any]
#
# `release` (the default) is for comparing speed. `any` is for comparing results: whichever build is there, and
# where there is none, cargo's dev profile, which takes a third of the time.
# It lies in ${XDG_CACHE_HOME:-~/.cache}/composefs-csi/tools/cfsctl-VERSION[-dev]/bin, comes from the Rust package
# registry at the version whose format this project follows, and is built once, at low priority. Pulling with it
# needs skopeo.
set -euo pipefail

# The same release as the `composefs` crate in Cargo.toml.
version=0.9.4

say() { echo "cfsctl: $*" >&2; }
die() { say "error: $*"; exit 1; }

release=${XDG_CACHE_HOME:-$HOME/.cache}/composefs-csi/tools/cfsctl-$version
case "${1:-release}" in
    release) dir=$release options='' ;;
    any)     dir=$release options=''
             if [ ! -x "$dir/bin/cfsctl" ]; then dir=$release-dev options=--debug; fi ;;
    *)       sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
esac
mkdir -p "$dir"
# One at a time: several tests ask at once.
exec 9>"$dir/.lock"
flock 9
if [ ! -x "$dir/bin/cfsctl" ]; then
    command -v cargo >/dev/null || die "cargo is missing; install the Rust toolchain from https://rustup.rs"
    say "building cfsctl $version; this takes some minutes, once"
    # A target directory of its own: the caller's settings and its build must not meet this one.
    # shellcheck disable=SC2086  # none or one
    env -u CARGO_TARGET_DIR -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS CARGO_TARGET_DIR="$dir/.build" \
        CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0 \
        nice -n 19 cargo install --quiet --locked $options --root "$dir" --version "=$version" composefs-ctl >&2 9>&- \
        || die "cannot build composefs-ctl $version; see cargo's message above (it needs libssl-dev and pkg-config)"
    rm -rf "$dir/.build"
    say "cfsctl is ready in $dir/bin"
fi
echo "$dir/bin/cfsctl"
