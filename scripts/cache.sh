#!/usr/bin/env bash
# What the cache promises over time and size, measured: `scripts/cache.sh [memory|fire|policies|purges]...`, all of it without a name.
#   memory    10 million different URLs through a gateway: the process grows by the cache's size and a tenth at most
#   fire      bodies under concurrent fills, evictions, purges, ranges, 304s and aborts, for a minute: each is an origin's version; once
#             over four gateways in one process, once over four that share a Redis which is too small
#   policies  hit ratios by policy on stated traces; stored as loadtests/reports/cache-policies.md
#   purges    a thousand purges a second at four gateways, while the connections by which they are heard of are killed
# Exit codes: 0 all of it holds, 1 something does not, 2 usage, 69 something is missing and cannot be installed here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh

readonly URLS=${CACHE_URLS:-10000000}
readonly MIB=${CACHE_MIB:-256}
readonly SECONDS_OF_FIRE=${FIRE_SECONDS:-60}
readonly REPORT=loadtests/reports/cache-policies.md

memory() { cargo run --release --locked --quiet -p troupe-gateway --example distinct -- "$URLS" "$MIB"; }

fire() {
    FIRE_SECONDS=$SECONDS_OF_FIRE cargo test --release --locked --quiet -p troupe-gateway --test http -- \
        --nocapture every_body_is_whole_and_of_one_version
    cargo build --release --locked --quiet -p troupe --bin troupe
    FIRE_SECONDS=$SECONDS_OF_FIRE TROUPE_BINARY="$PWD/target/release/troupe" cargo test --locked --quiet -p troupe --test stack -- \
        --nocapture tiers::fire::every_byte_is_of_one_version_under_fire
}

policies() {
    cargo run --release --locked --quiet -p troupe-cache --example policies >"$REPORT.new"
    mv "$REPORT.new" "$REPORT"
    cat "$REPORT"
}

purges() {
    cargo build --release --locked --quiet -p troupe --bin troupe
    TROUPE_BINARY="$PWD/target/release/troupe" cargo test --locked --quiet -p troupe --test stack -- \
        --ignored --nocapture tiers::scale::how_many_purges_a_second
}

parts=("$@")
[ ${#parts[@]} -gt 0 ] || parts=(memory fire policies purges)
for part in "${parts[@]}"; do
    case "$part" in
        memory | fire | policies | purges) ;;
        *)
            say "error: no such part: $part; there are: memory, fire, policies, purges"
            exit 2
            ;;
    esac
done
need_cargo
for part in "${parts[@]}"; do
    say "== $part"
    "$part"
done
