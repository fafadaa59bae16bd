#!/usr/bin/env bash
# Every fuzz target for a minute each; `scripts/fuzz.sh NAME...` runs only those, FUZZ_SECONDS sets another duration.
# A finding is left in the fuzz folder's artifacts/ and ends the run with cargo-fuzz's exit code.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh

readonly FUZZ_DIR=shared/wire/fuzz
seconds=${FUZZ_SECONDS:-60}

need_cargo
cargo +nightly --version >/dev/null 2>&1 ||
    unavailable "fuzzing needs a nightly Rust" "run: rustup toolchain install nightly --profile minimal"
cargo +nightly fuzz --version >/dev/null 2>&1 ||
    unavailable "cargo-fuzz is not installed" "run: cargo install --locked cargo-fuzz"
need_packages c++ g++ # libFuzzer is C++
[ -d "$FUZZ_DIR" ] || unavailable "there are no fuzz targets in $FUZZ_DIR"

if [ $# -gt 0 ]; then targets=("$@"); else mapfile -t targets < <(cargo +nightly fuzz list --fuzz-dir "$FUZZ_DIR"); fi
for target in "${targets[@]}"; do
    say "== $target, ${seconds} s"
    cargo +nightly fuzz run --fuzz-dir "$FUZZ_DIR" "$target" -- -max_total_time="$seconds" -print_final_stats=1
done
say "fuzzed without a finding: ${targets[*]}"
