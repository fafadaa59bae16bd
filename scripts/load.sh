#!/usr/bin/env bash
# wrk and Locust against a stack that runs, here (make stack, make up) or elsewhere (HOST=http://...), and one report.
# Arguments go to loadtests/load (--help lists them).
# Exit codes: 0 a report was written, 1 requests failed: no report, 2 usage, 3 a goal of slo.toml was missed, 69 the stack does
# not answer, or something is missing and cannot be installed here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh

readonly VENV=${CARGO_TARGET_DIR:-target}/locust

need_packages python3 python3-minimal
case " $* " in *" --help "* | *" -h "*) exec python3 loadtests/load "$@" ;; esac
need_packages wrk wrk
locust=$(command -v locust || true)
if [ -z "$locust" ]; then
    if [ ! -x "$VENV/bin/locust" ]; then
        say "installing Locust into $VENV"
        python3 -c 'import ensurepip' 2>/dev/null || install_packages "Python's venv" python3-venv
        python3 -m venv "$VENV"
        "$VENV/bin/pip" install --quiet -r loadtests/locust/requirements.txt >&2 ||
            unavailable "Locust could not be installed" "see pip's message above; --locust-seconds 0 does without"
    fi
    locust=$VENV/bin/locust
fi

options=(--locust "$locust")
[ -z "${HOST:-}" ] || options+=(--host "$HOST")
[ -n "${HOST:-}" ] || [ -z "${TROUPE_PORT:-}" ] || options+=(--host "http://127.0.0.1:$TROUPE_PORT")
# The yardstick is this machine's: no measure for a stack elsewhere.
if [ -z "${HOST:-}" ] && command -v cargo >/dev/null; then
    cargo build --release --locked --quiet -p bare-actix &&
        options+=(--baseline "${CARGO_TARGET_DIR:-target}/release/bare-actix")
fi
PYTHONDONTWRITEBYTECODE=1 exec python3 loadtests/load "${options[@]}" "$@"
