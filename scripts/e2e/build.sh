#!/bin/bash
# Builds the programs and images of the end-to-end cluster, once, and prints the directory that holds them:
# kubernetes-RELEASE/ and images/ (docker archives: pause, sidecars, tools).
#
#   build.sh
#
# The directory is ${XDG_CACHE_HOME:-~/.cache}/composefs-csi/e2e (COMPOSEFS_CSI_E2E_CACHE overrides it). Each part is built beside its place and moved there when it is complete, so that an
# interrupted run goes on where it was; a part whose version changes is built again.
#
#   COMPOSEFS_CSI_E2E_KUBERNETES   1.20: from Debian's source, by Go 1.19, 13 CPU minutes (the default)
#                                  1.36: from its Go module, by the machine's Go, 10 CPU minutes
#   COMPOSEFS_CSI_E2E_SIDECARS     a directory with static programs to put into the sidecars' images instead of those
#                                  that are built here: node-driver-registrar, livenessprobe, csi-provisioner, or some
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=common.sh
. "$here/common.sh"
tools=$here/../debian-tools.sh
sources=$here/../../tests/kind/sidecars

programs='kube-apiserver kube-controller-manager kube-scheduler kubelet kubectl'
module=$here/../../tests/kind/kubernetes
sidecar_programs='node-driver-registrar livenessprobe csi-provisioner'

# Upstream's own build, which generates code first; it needs GOPATH mode and finds all it needs in the source.
#
# reflect2 1.0.1, which is in it, reads Go's maps as they were before Go 1.18: the API server crashes on the first object of
# a CustomResourceDefinition. 1.0.2 has the same interface.
build_kubernetes_1_20() {
    local work=$1 source go what='' at
    source=$("$tools" kubernetes)/source
    go=$(dirname "$(readlink -f "$("$tools" go-1.19)/bin/go")")
    for program in $programs; do what+=" cmd/$program"; done
    if [ ! -e "$work/copied" ]; then
        rm -rf "$work/source"
        cp -a "$source" "$work/source"
        mkdir -p "$work/source/.go/src/k8s.io"
        ln -s ../../.. "$work/source/.go/src/k8s.io/kubernetes"
        at=$work/source/vendor/github.com/modern-go/reflect2
        rm -r "$at"
        cp -r --no-preserve=mode "$(reflect2)" "$at"
        # What upstream's scripts would ask git for.
        cat >"$work/source/version" <<VERSION
KUBE_GIT_VERSION=v1.20.2
KUBE_GIT_COMMIT=debian
KUBE_GIT_TREE_STATE=archive
KUBE_GIT_MAJOR=1
KUBE_GIT_MINOR=20
VERSION
        touch "$work/copied"
    fi
    say "building Kubernetes 1.20; this takes 13 CPU minutes, once (log: $work/log)"
    (cd "$work/source" && env -i HOME="$work/home" PATH="$go:/usr/sbin:/usr/bin:/sbin:/bin" GOPATH="$PWD/.go" \
        GOPROXY=off CGO_ENABLED=0 KUBE_GIT_VERSION_FILE="$PWD/version" \
        nice -n 10 make WHAT="${what# }") >"$work/log" 2>&1 </dev/null \
        || die "Kubernetes does not build; see $work/log"
    for program in $programs; do cp "$work/source/_output/bin/$program" "$work/out/"; done
}

# The directory of reflect2 1.0.2, by the machine's Go.
reflect2() {
    local go
    go=$("$here/../go.sh" "$sources/go.mod")/go
    (cd / && GOTOOLCHAIN=local GOFLAGS='' GOWORK=off "$go" mod download -json github.com/modern-go/reflect2@v1.0.2) \
        | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",$/\1/p' | grep . || die "reflect2 1.0.2 cannot be fetched"
}

# As a dependency of a module of ours. The linker takes 2 GB of memory.
build_kubernetes_1_36() {
    local work=$1 go version what='' stamp program
    go=$("$here/../go.sh" "$module/go.mod")/go
    version=$(sed -n 's|^.*k8s.io/kubernetes \(v[0-9.]*\).*|\1|p' "$module/go.mod")
    [ -n "$version" ] || die "$module/go.mod requires no k8s.io/kubernetes"
    stamp="-X k8s.io/component-base/version.gitVersion=$version -X k8s.io/component-base/version.gitMajor=1"
    stamp+=" -X k8s.io/component-base/version.gitMinor=36"
    for program in $programs; do what+=" k8s.io/kubernetes/cmd/$program"; done
    say "building Kubernetes $version; this takes 10 CPU minutes, once"
    # shellcheck disable=SC2086  # a list
    (cd "$module" && GOTOOLCHAIN=local GOFLAGS='' GOWORK=off CGO_ENABLED=0 \
        nice -n 10 "$go" build -trimpath -ldflags="-s -w $stamp" -o "$work/out/" $what >&2) || die "Kubernetes does not build"
}

# Static programs, whatever the machine's settings are.
build_sidecars() {
    local go
    go=$("$here/../go.sh" "$sources/go.mod")/go
    say "building the sidecars; this takes 4 CPU minutes, once"
    (cd "$sources" && GOTOOLCHAIN=local GOFLAGS='' GOWORK=off CGO_ENABLED=0 \
        nice -n 10 "$go" build -trimpath -ldflags='-s -w' -o "$1/out/" ./node-driver-registrar ./livenessprobe \
        github.com/kubernetes-csi/external-provisioner/v6/cmd/csi-provisioner >&2) || die "the sidecars do not build"
}

# sidecar NAME: the program that its image gets.
sidecar() {
    local given=${COMPOSEFS_CSI_E2E_SIDECARS:-}
    if [ -n "$given" ] && [ -e "$given/$1" ]; then echo "$given/$1"; else echo "$cache/sidecars/$1"; fi
}

# What an image is made of, for its version.
sidecars_digest() {
    local name
    for name in $sidecar_programs; do sha256sum <"$(sidecar "$name")"; done
}

# image NAME ROOT ENTRYPOINT
image() { "$here/image.sh" "$cache/images/$1.tar" "e2e.local/$1:1" "${@:2}"; }

build_images() {
    local root=$1/out name registry busybox
    registry=$("$tools" registry)/root
    busybox=$registry/usr/bin/busybox
    mkdir -p "$cache/images"
    # The tools have a shell; `sleep` without an end is all that a pause container does.
    mkdir -p "$root/tools/bin"
    cp "$busybox" "$root/tools/bin/busybox"
    "$busybox" --list | while read -r name; do
        [ "$name" = busybox ] || ln -s busybox "$root/tools/bin/$name"
    done
    mkdir -p "$root/tools/tmp" "$root/tools/etc"
    echo 'root:x:0:0:root:/:/bin/sh' >"$root/tools/etc/passwd"
    image tools "$root/tools" '["/bin/sleep","infinity"]'
    image pause "$root/tools" '["/bin/sleep","infinity"]'
    cp -a "$registry" "$root/registry"
    rm -rf "$root"/registry/usr/share
    # As it is called in the image of its makers.
    ln -s docker-registry "$root/registry/usr/bin/registry"
    image registry "$root/registry" '["/usr/bin/registry","serve","/etc/docker/registry/config.yml"]'
    for name in $sidecar_programs; do
        mkdir -p "$root/$name"
        cp "$(sidecar "$name")" "$root/$name/$name"
        image "$name" "$root/$name" "[\"/$name\"]"
    done
    rm -rf "${root:?}"/*
}

# part NAME DESTINATION VERSION: builds NAME unless this version of it is in place.
part() {
    local name=$1 destination=$2 version=$3 work=$cache/.build/$1
    [ "$(cat "$cache/$name.version" 2>/dev/null)" != "$version" ] || return 0
    rm -rf "$work/out"
    mkdir -p "$work/out" "$cache/$destination"
    "build_$name" "$work"
    find "$work/out" -mindepth 1 -maxdepth 1 -exec mv -f -t "$cache/$destination" {} +
    rm -rf "$work"
    echo "$version" >"$cache/$name.version"
}

main() {
    [ $# -eq 0 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
    known_release
    need dpkg-source; need rsync; need tar
    mkdir -p "$e2e_cache"
    cache=$(cd "$e2e_cache" && pwd)
    [ -z "${COMPOSEFS_CSI_E2E_SIDECARS:-}" ] || [ -d "$COMPOSEFS_CSI_E2E_SIDECARS" ] \
        || die "COMPOSEFS_CSI_E2E_SIDECARS names $COMPOSEFS_CSI_E2E_SIDECARS, which is no directory"
    # One at a time.
    exec 9>"$cache/.lock"
    flock 9
    case "$e2e_kubernetes" in
        1.20) part kubernetes_1_20 kubernetes-1.20 v1.20.2+reflect2-1.0.2 ;;
        1.36) part kubernetes_1_36 kubernetes-1.36 "$(sha256sum <"$module/go.mod")" ;;
    esac
    # What is ours has no version: its content is.
    part sidecars sidecars "$(cat "$sources"/go.* "$sources"/*/*.go | sha256sum)"
    part images images "$({ cat "$here/image.sh" "$here/build.sh"; sidecars_digest; } | sha256sum)"
    "$tools" "$(node_packages)" >/dev/null
    rm -rf "$cache/.build"
    echo "$cache"
}

main "$@"
