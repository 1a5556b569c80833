#!/bin/bash
# Prints the directory of programs in Python that tests hold us against: modelpack (modelpack-client) and, for oras-py, python3.
#
#   scripts/python-tools.sh [DIR]
#
# DIR defaults to ${XDG_CACHE_HOME:-~/.cache}/composefs-csi/tools/python-VERSIONS; the programs are in DIR/bin. Their packages come
# from PyPI, pinned by digest in scripts/python-tools.txt, into an environment of their own: nothing of the machine changes.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "python-tools: $*" >&2; }
die() { say "error: $*"; exit 1; }

[ $# -le 1 ] || { sed -n '2,/^set -euo/{/^set -euo/d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
list=scripts/python-tools.txt
# An environment is of one Python, and of one list.
python=$(python3 -c 'import sys, venv, ensurepip; print("%d.%d.%d" % sys.version_info[:3])') \
    || die "python3 cannot make environments; install python3-venv"
versions=$python-$(sha256sum "$list" | cut -c1-12)
dir=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/composefs-csi/tools/python-$versions}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
# One at a time: several tests ask at once.
exec 9>"$dir.lock"
flock 9
if [ ! -e "$dir/complete" ]; then
    say "installing $list into $dir, once"
    python3 -m venv --clear "$dir" >&2 9>&-
    "$dir/bin/pip" --quiet --disable-pip-version-check install --no-cache-dir --require-hashes --only-binary :all: \
        -r "$list" >&2 9>&- || die "cannot install $list; see pip's message above (it needs PyPI)"
    touch "$dir/complete"
fi
echo "$dir"
