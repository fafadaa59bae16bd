#!/usr/bin/env bash
# Every test. Arguments go to the Rust test runner (`scripts/test.sh -p troupe-wire`); its summary is the last line.
# TESTS_WITHOUT=chromium,tmux (and axe, promtool, valgrind) leaves out the tests that need these tools.
# Exit codes: 0 all passed, 69 something is missing and cannot be installed here, else the failing runner's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh

need_cargo
need_php
need_packages python3 python3
need_packages wrk wrk
need_packages haproxy haproxy
need_fpm
need_redis
if wanted promtool; then need_promtool; fi
need_browser
need_tmux
need_valgrind

readonly PHP_SUITE=services/php-pool/runtime/tests/run.php
if [ -f "$PHP_SUITE" ]; then
    say "== the PHP runtime's own tests"
    php "$PHP_SUITE"
else
    say "== the PHP runtime's own tests: skipped, $PHP_SUITE is not there"
fi

say "== rules and dashboards"
if wanted promtool; then scripts/rules.sh >&2; fi
scripts/axe.sh

# Who names tests of Rust's waits for none of these.
if [ $# -eq 0 ]; then
    say "== what measures, and what breaks the stack: their own tests"
    for suite in loadtests/tests docker/tests/unit; do
        PYTHONDONTWRITEBYTECODE=1 python3 -m unittest discover -s "$suite" >&2
    done
fi

if cargo nextest --version >/dev/null 2>&1; then
    if [ $# -eq 0 ]; then
        # Documentation examples are not nextest's business; they go first so that its summary stays last.
        say "== documentation examples"
        cargo test --workspace --locked --quiet --doc
        set -- --workspace
    fi
    say "== unit and whole-stack tests"
    # Nothing may wait for a key: CI has no terminal.
    exec cargo nextest run --locked --no-tests=pass "$@" </dev/null
fi

say "== all tests with cargo test: cargo-nextest is not installed (cargo install --locked cargo-nextest makes this faster)"
[ $# -gt 0 ] || set -- --workspace
exec cargo test --locked --no-fail-fast "$@" </dev/null
