#!/bin/bash
# fuzz.sh SECONDS [TARGET...]: runs fuzz targets one after another, each for so many seconds, and prints what
# came of it. Findings are in fuzz/artifacts/TARGET; the corpora grow in fuzz/corpus and may be thrown away.
set -euo pipefail
seconds=$1
shift
cd "$(dirname "$0")/.."
command -v cargo-fuzz >/dev/null || { echo "fuzz: run: cargo install cargo-fuzz --locked" >&2; exit 1; }
# libFuzzer's instrumentation is not stable in rustc; this says so to a stable one.
export RUSTC_BOOTSTRAP=1
[ $# -gt 0 ] || mapfile -t all < <(cargo fuzz list)
[ $# -gt 0 ] || set -- "${all[@]}"
seeds=$(mktemp -d)
trap 'rm -rf "$seeds"' EXIT
scripts/fuzz-seeds.sh "$seeds"
cargo fuzz build
failed=0
for target in "$@"; do
    case $target in
    tar | layer) dictionary=tar longest=16384 ;;
    policy) dictionary=policy longest=8192 ;;
    hosts_toml | registries_conf) dictionary=mirrors longest=4096 ;;
    tree | layer_record) dictionary='' longest=2048 ;;
    *) dictionary=json longest=8192 ;;
    esac
    mkdir -p "fuzz/corpus/$target" "$seeds/$target" fuzz/logs
    log=fuzz/logs/$target.log
    # A crash ends the run of its target, and is a finding; a run that goes well ends at the time limit.
    cargo fuzz run "$target" "fuzz/corpus/$target" "$seeds/$target" -- -max_total_time="$seconds" -max_len="$longest" \
        -rss_limit_mb=2048 -malloc_limit_mb=512 -timeout=20 -print_final_stats=1 \
        ${dictionary:+-dict="fuzz/dictionaries/$dictionary.dict"} >"$log" 2>&1 && result=clean || result=FAILED
    rm -rf /dev/shm/composefs-csi-fuzz.*
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    rate=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$log")
    peak=$(sed -n 's/^stat::peak_rss_mb: *//p' "$log")
    coverage=$(grep -o 'cov: [0-9]* ft: [0-9]*' "$log" | tail -1)
    printf '%-14s %-6s %12s executions, %6s/s, %s, peak %s MiB\n' "$target" "$result" "${executions:-?}" "${rate:-?}" "$coverage" "${peak:-?}"
    [ "$result" = clean ] || { failed=1; tail -30 "$log"; }
done
exit "$failed"
