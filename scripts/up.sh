#!/usr/bin/env bash
# From a machine with nothing but Rust to a serving stack. Arguments go to `troupe run`.
# Exit codes: 69 when something is missing and cannot be installed here; cargo's; then those of `troupe run`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh

need_cargo
need_php

cargo build --release --locked --bin troupe
# exec: signals reach Troupe itself, and its exit code is ours.
exec "${CARGO_TARGET_DIR:-target}/release/troupe" run "$@"
