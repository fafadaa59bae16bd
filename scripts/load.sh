#!/usr/bin/env bash
# Load against a stack that runs, here (make stack, make up) or elsewhere (HOST=http://...), and one report. Arguments go to
# loadtests/load: the suite (load, baseline, stress, crowd, curve, connects, guides) and its options (--help lists them).
# Exit codes: 0 a report was written, 1 requests failed: no report, 2 usage, 3 a goal was missed, 69 the stack does not answer,
# or something is missing and cannot be installed here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh

readonly VENV=${CARGO_TARGET_DIR:-target}/locust

need_packages python3 python3-minimal
case " $* " in *" --help "* | *" -h "*) exec python3 loadtests/load "$@" ;; esac
suite=load
case ${1:-} in [a-z]*) suite=$1 ;; esac

# need_locust: sets `locust` to the program; without one, one of its own.
need_locust() {
    locust=$(command -v locust || true)
    [ -z "$locust" ] || return 0
    locust=$VENV/bin/locust
    [ ! -x "$locust" ] || return 0
    say "installing Locust into $VENV"
    python3 -c 'import ensurepip' 2>/dev/null || install_packages "Python's venv" python3-venv
    python3 -m venv "$VENV"
    "$VENV/bin/pip" install --quiet -r loadtests/locust/requirements.txt >&2 ||
        unavailable "Locust could not be installed" "see pip's message above; --locust-seconds 0 does without"
}

options=()
case $suite in load | guides) need_locust && options+=(--locust "$locust") ;; esac
case $suite in connects | guides) need_packages ab apache2-utils ;; esac
case $suite in
    connects) PATH="$PATH:/usr/sbin" need_packages nginx nginx-light ;;
    guides) need_packages hey hey && need_packages curl curl ;;
esac
[ "$suite" = connects ] || need_packages wrk wrk
[ -z "${HOST:-}" ] || options+=(--host "$HOST")
[ -n "${HOST:-}" ] || [ -z "${TROUPE_PORT:-}" ] || options+=(--host "http://127.0.0.1:$TROUPE_PORT")
# build PACKAGE: one of our own programs, where it can be built.
build() { command -v cargo >/dev/null && cargo build --release --locked --quiet -p "$1"; }
case $suite in
    # The yardstick is this machine's: no measure for a stack elsewhere.
    load) [ -n "${HOST:-}" ] || ! build bare-actix || options+=(--baseline "${CARGO_TARGET_DIR:-target}/release/bare-actix") ;;
    curve) ! build open-loop || options+=(--open-loop "${CARGO_TARGET_DIR:-target}/release/open-loop") ;;
esac
PYTHONDONTWRITEBYTECODE=1 exec python3 loadtests/load "$@" "${options[@]}"
