#!/usr/bin/env bash
# Every fuzz target for a minute each; `scripts/fuzz.sh NAME...` runs only those, FUZZ_SECONDS sets another duration.
# Any Rust will do, and no cargo-fuzz: the code is safe Rust throughout, so the coverage that guides libFuzzer is all
# that is needed, and stable can give it. (With both installed, `cargo +nightly fuzz` works on the same folder.)
# Exit codes: 0 nothing found, 69 something is missing and cannot be installed here, else libFuzzer's; a finding is
# left in the fuzz folder's artifacts/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh

readonly FUZZ_DIR=shared/wire/fuzz
# The instrumentation libFuzzer reads: edge counters, their addresses, and the operands of comparisons.
readonly COVERAGE=(
    --cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares
)
seconds=${FUZZ_SECONDS:-60}

need_cargo
need_packages c++ g++ # libFuzzer itself

if [ $# -gt 0 ]; then
    targets=("$@")
else
    targets=("$FUZZ_DIR"/fuzz_targets/*.rs)
    targets=("${targets[@]##*/}")
    targets=("${targets[@]%.rs}")
fi
for name in "${targets[@]}"; do
    if [ ! -f "$FUZZ_DIR/fuzz_targets/$name.rs" ]; then
        say "error: no fuzz target $name in $FUZZ_DIR/fuzz_targets"
        exit 2
    fi
done

# A target named outright keeps the flags away from build scripts and macros, which run without libFuzzer.
host=$(rustc -vV | sed -n 's/^host: //p')
target_dir=${CARGO_TARGET_DIR:-$FUZZ_DIR/target}
RUSTFLAGS="${COVERAGE[*]}" cargo build --release --locked --manifest-path "$FUZZ_DIR/Cargo.toml" \
    --target "$host" --target-dir "$target_dir"

for name in "${targets[@]}"; do
    say "== $name, ${seconds} s"
    mkdir -p "$FUZZ_DIR/corpus/$name" "$FUZZ_DIR/artifacts/$name"
    "$target_dir/$host/release/$name" "$FUZZ_DIR/corpus/$name" -artifact_prefix="$FUZZ_DIR/artifacts/$name/" \
        -max_total_time="$seconds" -print_final_stats=1
done
say "fuzzed without a finding: ${targets[*]}"
