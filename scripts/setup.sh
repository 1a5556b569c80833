#!/bin/bash
# Installs the Debian packages that a task needs and this machine lacks; a second run finds nothing to do.
#
#   scripts/setup.sh TASK...
#
# TASK is one of
#   build    a C compiler and OpenSSL's headers, for the crates that link them
#   demo     nothing beyond build: the demonstration brings its own images and needs no registry
#   test     real registries, real builders and file tools, to compare with; tools and kernels of other
#            Debian suites for the virtual machine, unpacked into ~/.cache and not installed
#   e2e      what builds and starts the end-to-end cluster; its own programs are unpacked and built into ~/.cache
#   image    what builds container images
#   release  what builds the files of a release, and the registry of its dry run
#   fuzz     what the fuzzer is linked with, and what makes its seeds
#   soak     what sets the plugin's clock
#   bench    the peers that the benchmark runs beside us
#
# The Rust toolchain is yours: https://rustup.rs, at least the rust-version in Cargo.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*"; }
die() { echo "setup: error: $*" >&2; exit 1; }

# program-or-file:package, one per line. A program that is there, from wherever, needs no package.
needs() {
    case "$1" in
        build|demo) echo make:make cc:gcc /usr/include/stdio.h:libc6-dev pkg-config:pkg-config
                    echo /usr/include/openssl/ssl.h:libssl-dev
                    echo /etc/ssl/certs/ca-certificates.crt:ca-certificates ;;
        test)       needs build
                    echo docker-registry:docker-registry skopeo:skopeo umoci:umoci podman:podman buildah:buildah
                    echo htpasswd:apache2-utils openssl:openssl setfattr:attr setfacl:acl mke2fs:e2fsprogs mkfs.xfs:xfsprogs
                    echo mount:mount losetup:mount cpio:cpio bsdtar:libarchive-tools python3:python3 zstd:zstd xz:xz-utils strings:binutils
                    echo /usr/lib/python3/dist-packages/grpc:python3-grpcio
                    python3 -c 'import venv, ensurepip' 2>/dev/null || echo python3-venv:python3-venv
                    echo /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring ;;
        e2e)        needs build
                    echo dpkg-source:dpkg-dev patch:patch rsync:rsync openssl:openssl umoci:umoci
                    echo skopeo:skopeo htpasswd:apache2-utils unshare:util-linux nsenter:util-linux setsid:util-linux
                    echo /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring ;;
        image)      needs build
                    # Where docker is there and answers, it will do.
                    docker info >/dev/null 2>&1 || echo buildah:buildah
                    echo strip:binutils ;;
        release)    needs image
                    echo skopeo:skopeo jq:jq git:git docker-registry:docker-registry
                    echo /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring ;;
        fuzz)       needs build
                    echo c++:g++ tar:tar gzip:gzip zstd:zstd ;;
        soak)       needs test
                    echo faketime:faketime ;;
        bench)      needs test
                    echo time:time ;;
        *)          sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2 ;;
    esac
}

missing_packages() {
    local task need what
    for task in "$@"; do
        for need in $(needs "$task"); do
            what=${need%%:*}
            # sbin is not on everybody's PATH (mke2fs, losetup).
            if [ "${what#/}" != "$what" ]; then [ -e "$what" ] && continue
            elif PATH="$PATH:/usr/sbin:/sbin" command -v "$what" >/dev/null; then continue
            fi
            echo "${need#*:}"
        done
    done | sort -u
}

install_packages() {
    command -v apt-get >/dev/null || die "this machine has no apt; install what provides: $*"
    say "installing with apt: $*"
    local registry_is_new=''
    case " $* " in *' docker-registry '*) registry_is_new=1 ;; esac
    scripts/as-root.sh apt-get -qq update </dev/null
    scripts/as-root.sh env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends install "$@" </dev/null >/dev/null
    # Debian's package starts a registry on port 5000 of every interface; the tests start their own.
    if [ -n "$registry_is_new" ] && [ -d /run/systemd/system ]; then
        say "switching off the registry service that Debian's docker-registry package starts"
        scripts/as-root.sh systemctl disable --quiet --now docker-registry
    fi
}

# What no package of this machine's suite brings; the tests would fetch it as well, but silently.
fetch_tools() {
    local set
    for set in mkcomposefs qemu kernel-6.12 kernel-7 secilc prometheus node runtimes cosign cosign-2; do scripts/debian-tools.sh "$set" >/dev/null; done
    scripts/python-tools.sh >/dev/null
}

check_rust() {
    local want have
    command -v cargo >/dev/null || die "cargo is missing; install Rust from https://rustup.rs"
    want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    have=$(cargo --version | awk '{print $2}')
    [ "$(printf '%s\n' "$want" "$have" | sort -V | head -n 1)" = "$want" ] \
        || die "Rust $have is older than $want, which this project needs; run: rustup update stable"
}

main() {
    [ $# -ge 1 ] || set -- build
    local packages
    packages=$(missing_packages "$@")
    check_rust
    if [ -n "$packages" ]; then
        # shellcheck disable=SC2086  # a list
        install_packages $packages
        packages=$(missing_packages "$@")
        [ -z "$packages" ] || die "apt has done its work and these are still missing: ${packages//$'\n'/ }"
    fi
    case " $* " in *' test '*|*' bench '*) fetch_tools ;; esac
    case " $* " in *' bench '*) scripts/debian-tools.sh containerd >/dev/null ;; esac
    say "all that '$*' needs is here"
}

main "$@"
