#!/bin/bash
# fuzz-seeds.sh DIR: what the fuzzer starts from, one directory per target. Archives come from GNU tar in all its
# formats; documents are in fuzz/seeds. The first byte of most inputs chooses how the target reads the rest.
set -euo pipefail
out=$1
here=$(cd "$(dirname "$0")/.." && pwd)
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT

# with TARGET NAME CHOICE...: standard input as a seed of TARGET, once for every choice.
with() {
    local target=$1 name=$2 content
    shift 2
    mkdir -p "$out/$target"
    content=$(mktemp)
    cat >"$content"
    for choice in "$@"; do
        { printf "%b" "$choice"; cat "$content"; } >"$out/$target/$name-$(printf %s "$choice" | tr -dc 0-9a-f)"
    done
    rm "$content"
}

mkdir -p "$tree/a/etc" "$tree/sparse" "$tree/b/etc"
printf hello >"$tree/a/etc/small"
head -c 700 /dev/zero | tr '\0' x >"$tree/a/etc/large"
ln -s ../etc/small "$tree/a/link"
ln "$tree/a/etc/large" "$tree/a/hard"
mkfifo "$tree/a/pipe"
touch "$tree/a/$(printf 'n%.0s' {1..120})"
printf x >"$tree/b/etc/.wh.small"
printf x >"$tree/b/etc/.wh..wh..opq"
truncate -s 20000 "$tree/sparse/holes"
printf data | dd of="$tree/sparse/holes" bs=1 seek=9000 conv=notrunc status=none
same=(--owner=0 --group=0 --numeric-owner --mtime=@1700000000.5 --sort=name -b1)

for format in v7 oldgnu gnu ustar posix; do
    # v7 and ustar leave out what they cannot hold, and say so.
    tar -C "$tree/a" "${same[@]}" --format="$format" -cf - . 2>/dev/null >"$tree/$format.tar" || true
    with tar "$format" '\x00' '\x01' '\xfe' <"$tree/$format.tar"
    with layer "$format" '\x05\x00' '\x0a\xff' '\x0c\x7f' <"$tree/$format.tar"
done
for version in 0.0 0.1 1.0; do
    tar -C "$tree/sparse" "${same[@]}" --format=posix -S --sparse-version="$version" -cf - . | with tar "sparse-$version" '\x00'
done
tar -C "$tree/sparse" "${same[@]}" --format=gnu -S -cf - . | with tar sparse-gnu '\x00'
tar -C "$tree/b" "${same[@]}" -cf "$tree/b.tar" .
{ cat "$tree/posix.tar"; printf -- '--next layer--'; cat "$tree/b.tar"; } | with tar layers '\x00'
gzip -9c "$tree/posix.tar" | with layer gzip '\x01\xff' '\x00\x10'
zstd -qc "$tree/posix.tar" | with layer zstd '\x02\xff' '\x01\x10'

for seed in "$here"/fuzz/seeds/manifest/*; do
    with manifest "$(basename "$seed")" '\x00' '\x01' '\x02' '\x20' <"$seed"
done
for seed in "$here"/fuzz/seeds/index/*; do with index "$(basename "$seed")" '\x00' '\x01' '\x02' <"$seed"; done
for seed in "$here"/fuzz/seeds/store_record/*; do with store_record "$(basename "$seed")" '\x00' '\x01' '\x02' <"$seed"; done
for seed in "$here"/fuzz/seeds/chunked/*; do with chunked "$(basename "$seed")" '\x00\x08' '\x13\x00' <"$seed"; done
for seed in "$here"/fuzz/seeds/lazy/*; do with lazy "$(basename "$seed")" '\x00' '\x01' '\x02' '\x1f' <"$seed"; done
for seed in "$here"/fuzz/seeds/registry_auth/*; do with registry_auth "$(basename "$seed")" '\x00' '\x01' <"$seed"; done
for seed in "$here"/fuzz/seeds/signature/*; do with signature "$(basename "$seed")" '\x00' '\x01' '\x02' '\x03' <"$seed"; done
# Bundles that were really certified, as far as cargo has fetched the crate that tests with them.
for seed in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/sigstore-verify-*/test_data/bundles/*.json; do
    if [ -f "$seed" ]; then with signature "$(basename "$seed" .json)" '\x02' <"$seed"; fi
done
for target in reference policy hosts_toml registries_conf; do
    mkdir -p "$out/$target"
    cp "$here/fuzz/seeds/$target"/* "$out/$target/"
done
# Entries of a record: a directory `a`, a file in it, a link to that.
printf '\x07\x01\x00\x01a\xed\x03\x00\x00\x00\x00\x00\x02\x01\x02/b\xa4\x03\x00\x00\x00\x00\x00\x02hi\x05\x00\x01c\x03a/b' |
    { mkdir -p "$out/layer_record"; cat >"$out/layer_record/three"; }
mkdir -p "$out/tree"
head -c 400 "$here/LICENSE" >"$out/tree/text"
