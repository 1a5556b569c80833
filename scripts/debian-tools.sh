#!/bin/bash
# Fetches test tools from Debian suites that this machine does not run, without installing anything.
#
#   scripts/debian-tools.sh SET [DIR]      prints the directory of the set, ready to use
#
# SET is one of
#   mkcomposefs   mkcomposefs and composefs-info 1.0.8 (sid)           -> bin/mkcomposefs, bin/composefs-info
#   qemu          qemu-system-x86_64, its firmware and busybox         -> bin/qemu-system-x86_64, bin/busybox
#   kernel-6.12   Debian's cloud kernel 6.12 and its modules (trixie)  -> vmlinuz, modules/ (links)
#   kernel-7      Debian's cloud kernel 7.x and its modules (sid)      -> the same
#   cosign        cosign 3 (sid)                                       -> bin/cosign
#   cosign-2      cosign 2.5 (trixie)                                  -> bin/cosign
#   oras          oras 1.3 (sid)                                       -> bin/oras
#   notation      the Notary Project's notation (sid)                  -> bin/notation
#   go            the Go toolchain 1.24 or later (trixie)              -> bin/go
#   go-1.26       the Go toolchain 1.26 (sid)                          -> bin/go
#   go-1.19       the Go toolchain 1.19, for kubernetes 1.20 (bookworm) -> bin/go
#   kubernetes    Debian's source of Kubernetes 1.20 (bookworm)        -> source/, patched
#   node          a root filesystem for a Kubernetes node: etcd, containerd, runc, CNI plugins (bookworm) -> root/
#   node-sid      the same with etcd 3.5, containerd 2.1 and runc 1.3 or later (sid) -> root/
#   containerd    containerd 2.1 or later, to measure beside (sid)     -> bin/containerd, bin/ctr
#   runtimes      runc 1.3 and crun 1.20 or later (sid)                -> root/usr/sbin/runc, root/usr/bin/crun
#   registry      docker-registry with its libraries, busybox (bookworm) -> root/
#   secilc        the compiler of SELinux policies (bookworm)          -> bin/secilc
#   prometheus    Prometheus and promtool 2.42 (bookworm)              -> bin/prometheus, bin/promtool
#   containers    skopeo and podman that write sound zstd:chunked layers (sid) -> bin/skopeo, bin/podman
#
# DIR defaults to ${XDG_CACHE_HOME:-~/.cache}/composefs-csi/tools. Packages come from the mirror that the
# machine's own apt sources name (DEBIAN_MIRROR overrides it; where apt is not Debian's, cosign 3 and a static busybox
# of the machine's own take the places of the sets cosign and registry). They are verified by apt against the Debian
# keyring in a private apt state, and are only unpacked: the machine's packages stay as they are.
# Programs run through the C library of their own suite, by wrappers in bin/.
# A set that is complete is not fetched again; remove its directory to refresh it.
set -euo pipefail

say() { echo "debian-tools: $*" >&2; }
die() { say "error: $*"; exit 1; }

usage() { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

# Sets: suite, packages to resolve, which packages of the closure to keep, programs to wrap; source=Sources
# for a source package.
describe() {
    source=''
    case "$1" in
        mkcomposefs) suite=sid packages=composefs keep='.' programs='mkcomposefs composefs-info' ;;
        qemu)        suite=bookworm packages='qemu-system-x86 busybox-static' keep='.'
                     programs='qemu-system-x86_64 busybox' ;;
        kernel-6.12) suite=trixie packages=linux-image-cloud-amd64 keep='^linux-(image|modules|binary)-' programs='' ;;
        kernel-7)    suite=sid packages=linux-image-cloud-amd64 keep='^linux-(image|modules|binary|base-[0-9])' programs='' ;;
        cosign)      suite=sid packages=cosign keep='.' programs='cosign' ;;
        oras)        suite=sid packages=oras keep='.' programs='oras' ;;
        cosign-2)    suite=trixie packages=cosign keep='.' programs='cosign' ;;
        notation)    suite=sid packages=notation keep='.' programs='notation' ;;
        # Static programs that find their library beside them: no wrapper.
        go)          suite=trixie packages=golang-go keep='^golang-[0-9]' programs='' ;;
        go-1.26)     suite=sid packages=golang-1.26-go keep='^golang-[0-9]' programs='' ;;
        go-1.19)     suite=bookworm packages=golang-1.19-go keep='^golang-[0-9]' programs='' ;;
        node|node-sid) suite=bookworm keep='.' programs=''
                     [ "$1" = node ] || suite=sid
                     packages='etcd-server containerd runc containernetworking-plugins iptables iproute2 conntrack
                         mount util-linux coreutils findutils bash grep sed procps ca-certificates' ;;
        containerd)  suite=sid packages=containerd keep='^(containerd|lib)' programs='containerd ctr' ;;
        # Not by wrappers: both start themselves anew by /proc/self/exe.
        runtimes)    suite=sid packages='runc crun' keep='^(runc|crun|lib)' programs='' ;;
        registry)    suite=bookworm packages='docker-registry busybox-static' keep='.' programs='' ;;
        secilc)      suite=bookworm packages=secilc keep='.' programs=secilc ;;
        prometheus)  suite=bookworm packages=prometheus keep='^(prometheus|libc6)$' programs='prometheus promtool' ;;
        # Bookworm's write zstd:chunked layers whose tar is not that of the DiffID.
        containers)  suite=sid packages='skopeo podman' keep='.' programs='skopeo podman' ;;
        kubernetes)  suite=bookworm packages=kubernetes source=Sources keep='' programs='' ;;
        *)           say "unknown set '$1'"; usage ;;
    esac
}

need() { command -v "$1" >/dev/null || die "$1 is missing; this needs Debian's apt and dpkg ($2)"; }

# The machine's own Debian mirror: the first package index whose address ends in /debian/. Nothing, if there is none.
mirror() {
    if [ -n "${DEBIAN_MIRROR:-}" ]; then echo "$DEBIAN_MIRROR"; return; fi
    # Read to the end: an early exit would break the pipe under pipefail.
    # shellcheck disable=SC2016  # apt's own placeholders
    apt-get indextargets --format '$(CREATED_BY) $(REPO_URI)' \
        | awk '$1 == "Packages" && $2 ~ /\/debian\/?$/ && !seen { seen = 1; print $2 }'
}

# Where apt is not Debian's: links to programs of the machine's own in the set's directory $1.
link_own() {
    local program place missing="the apt sources of this machine name no Debian mirror; set DEBIAN_MIRROR to one"
    case "$set" in
        cosign)   place=bin/cosign ;;
        registry) place=root/usr/bin/busybox ;;
        *)        die "$missing" ;;
    esac
    program=$(command -v "${place##*/}") || die "$missing, or install ${place##*/}"
    case "$set" in
        # By an option that the tests use: some builds do not know their version.
        cosign)   [[ $("$program" sign --help) == *--use-signing-config* ]] || die "$missing, or install cosign 3" ;;
        # Tests put it into an image where it is alone.
        registry) ! grep -q 'ld-linux' "$program" || die "$missing, or install busybox-static" ;;
    esac
    mkdir -p "$1/${place%/*}"
    ln -s "$(readlink -f "$program")" "$1/$place"
    echo "$program" >"$1/packages"
}

# apt with a state of its own; the machine's proxy and TLS settings (apt.conf.d) still apply.
private_apt() {
    local tool=$1; shift
    "$tool" -qq \
        -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$apt/sources" \
        -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
        -o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" \
        -o APT::Sandbox::User="$(id -un)" -o APT::Install-Recommends=false \
        -o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Update::Error-Mode=any "$@"
}

prepare_apt() {
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r "$keyring" ] || die "$keyring is missing; install debian-archive-keyring"
    mkdir -p "$apt/sources" "$apt/state/lists/partial" "$apt/cache/archives/partial"
    : >"$apt/status" # nothing is installed in this state, so every dependency is part of the answer
    cat >"$apt/sources/debian.sources" <<SOURCES
Types: deb${source:+-src}
URIs: $mirror
Suites: $suite
Components: main
Signed-By: $keyring
Targets: ${source:-Packages}
SOURCES
    say "reading the package index of Debian $suite"
    private_apt apt-get update || die "cannot read the index of Debian $suite; see apt's message above"
}

# name=version of every package of the closure that the set keeps.
resolve() {
    # shellcheck disable=SC2086  # a list
    private_apt apt-get --simulate install $packages | awk '$1 == "Inst" { print $2, substr($3, 2) }' \
        | awk -v keep="$keep" '$1 ~ keep { print $1 "=" $2 }'
}

fetch_and_unpack() {
    local wanted deb root=$1/root debs=$1/debs
    wanted=$(resolve)
    [ -n "$wanted" ] || die "Debian $suite offers nothing for: $packages"
    say "fetching $(wc -w <<<"$wanted") packages for $set from Debian $suite"
    mkdir -p "$debs" "$root"
    # shellcheck disable=SC2086  # a list
    (cd "$debs" && private_apt apt-get download $wanted) || die "cannot fetch the packages of $set; see apt's message above"
    # Merged /usr first, as every suite here has it: otherwise a package shipping /lib makes a directory.
    mkdir -p "$root"/usr/{bin,sbin,lib,lib64}
    for dir in bin sbin lib lib64; do ln -s "usr/$dir" "$root/$dir"; done
    for deb in "$debs"/*.deb; do
        # Through tar, which keeps those links; dpkg -x would replace them by directories of old packages.
        dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink --no-same-owner -C "$root" -f - \
            || die "cannot unpack ${deb##*/}"
    done
    (cd "$debs" && printf '%s\n' *.deb) >"$1/packages"
    rm -r "$debs"
}

# A source package with Debian's patches applied.
fetch_source() {
    need dpkg-source dpkg-dev
    mkdir -p "$1/dsc"
    say "fetching the source package $packages from Debian $suite"
    (cd "$1/dsc" && private_apt apt-get source --download-only "$packages") \
        || die "cannot fetch the source of $packages; see apt's message above"
    dpkg-source --no-check -x "$1"/dsc/*.dsc "$1/source" >/dev/null || die "cannot unpack the source of $packages"
    (cd "$1/dsc" && printf '%s\n' *.dsc) >"$1/packages"
    rm -r "$1/dsc"
}

# A wrapper runs the program with the loader and libraries beside it, wherever the directory is.
wrap() {
    local program target loader libs extra=''
    mkdir -p "$1/bin"
    for program in $programs; do
        target=$(cd "$1" && find root/usr/bin root/usr/sbin -name "$program" ! -type d | head -n 1)
        [ -n "$target" ] || die "the packages of $set hold no program $program"
        loader=$(cd "$1" && find root/usr/lib* -type f -name 'ld-linux*.so.*' | head -n 1)
        [ -n "$loader" ] || die "the packages of $set hold no dynamic loader"
        libs=$(dirname "$loader")
        [ "$program" != qemu-system-x86_64 ] || extra=' -L "$here/root/usr/share/qemu" -L "$here/root/usr/share/seabios"'
        # A static program has no interpreter and needs no loader.
        if [ "$program" = busybox ]; then
            ln -sf "../$target" "$1/bin/$program"
            continue
        fi
        cat >"$1/bin/$program" <<WRAPPER
#!/bin/sh
here=\$(cd "\$(dirname "\$(readlink -f "\$0")")/.." && pwd)
QEMU_MODULE_DIR="\$here/$libs/qemu" exec "\$here/$loader" --library-path "\$here/$libs" "\$here/$target"$extra "\$@"
WRAPPER
        chmod +x "$1/bin/$program"
    done
}

# One name for the kernel and its modules, whatever its version and where the package puts it.
link_kernel() {
    local image modules
    image=$(cd "$1" && find root -type f -name 'vmlinuz*' | head -n 1)
    modules=$(cd "$1" && find root/usr/lib/modules -mindepth 1 -maxdepth 1 -type d | head -n 1)
    [ -n "$image" ] && [ -n "$modules" ] || die "the packages of $set hold no kernel or no modules"
    ln -s "$image" "$1/vmlinuz"
    ln -s "$modules" "$1/modules"
}

# Go's tree lies under its version; a link finds it, and go resolves that link to its own root.
link_go() {
    local program
    program=$(cd "$1" && find root/usr/lib -path '*/go-*/bin/go' | sort -V | tail -n 1)
    [ -n "$program" ] || die "the packages of $set hold no program go"
    mkdir -p "$1/bin"
    ln -s "../$program" "$1/bin/go"
}

# Debian's packages of the set, in the directory $1.
fill() {
    apt=$base/.apt/$suite${source:+-src}
    prepare_apt
    if [ -n "$source" ]; then fetch_source "$1"; else fetch_and_unpack "$1"; fi
    wrap "$1"
    case "$set" in
        kernel-*) link_kernel "$1" ;;
        go*)      link_go "$1" ;;
    esac
}

main() {
    [ $# -ge 1 ] && [ $# -le 2 ] || usage
    set=$1
    base=${2:-${XDG_CACHE_HOME:-$HOME/.cache}/composefs-csi/tools}
    describe "$set"
    mkdir -p "$base"
    base=$(cd "$base" && pwd)
    # One at a time: several tests ask at once.
    exec 9>"$base/.lock"
    flock 9
    if [ ! -e "$base/$set/packages" ]; then
        need apt-get apt; need dpkg-deb dpkg; need tar tar
        local work="$base/.$set.new"
        rm -rf "$work"
        mkdir -p "$work"
        mirror=$(mirror)
        if [ -n "$mirror" ]; then fill "$work"; else link_own "$work"; fi
        rm -rf "${base:?}/$set"
        mv "$work" "$base/$set"
        say "$set is ready in $base/$set"
    fi
    echo "$base/$set"
}

main "$@"
