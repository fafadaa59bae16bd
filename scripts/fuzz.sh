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

readonly FUZZ_DIRS=(shared/wire/fuzz services/cache/fuzz)
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

# A target named outright keeps the flags away from build scripts and macros, which run without libFuzzer.
host=$(rustc -vV | sed -n 's/^host: //p')

# The targets of a folder, or those among them that were named.
targets_of() {
    local file name
    for file in "$1"/fuzz_targets/*.rs; do
        name=${file##*/}
        name=${name%.rs}
        [[ ${#wanted[@]} -eq 0 || " ${wanted[*]} " == *" $name "* ]] && printf '%s\n' "$name"
    done
    return 0
}

wanted=("$@")
for name in "${wanted[@]}"; do
    if ! compgen -G "*/*/fuzz/fuzz_targets/$name.rs" >/dev/null; then
        say "error: no fuzz target $name in any of: ${FUZZ_DIRS[*]}"
        exit 2
    fi
done
fuzzed=()
for dir in "${FUZZ_DIRS[@]}"; do
    mapfile -t targets < <(targets_of "$dir")
    [ ${#targets[@]} -gt 0 ] || continue
    target_dir=${CARGO_TARGET_DIR:-$dir/target}
    RUSTFLAGS="${COVERAGE[*]}" cargo build --release --locked --manifest-path "$dir/Cargo.toml" \
        --target "$host" --target-dir "$target_dir"
    for name in "${targets[@]}"; do
        say "== $name, ${seconds} s"
        mkdir -p "$dir/corpus/$name" "$dir/artifacts/$name"
        "$target_dir/$host/release/$name" "$dir/corpus/$name" -artifact_prefix="$dir/artifacts/$name/" \
            -max_total_time="$seconds" -print_final_stats=1
        fuzzed+=("$name")
    done
done
say "fuzzed without a finding: ${fuzzed[*]}"
