#!/usr/bin/env bash
# Troupe beside its peers, on this machine. Arguments go to loadtests/bench (--help lists them).
# Exit codes: 0 every figure that was asked for is met, 1 a figure is missed, could not be measured, or is void for errors,
# 2 usage, 69 something is missing and cannot be installed here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh

case " $* " in *" --help "* | *" -h "*) exec python3 loadtests/bench "$@" ;; esac

need_cargo
need_php
need_packages python3 python3-minimal
need_packages wrk wrk
PATH=$PATH:/usr/sbin:/sbin # where Debian puts servers, and where only root looks
fpm=$(php -r 'echo PHP_MAJOR_VERSION, ".", PHP_MINOR_VERSION;')
if ! command -v nginx >/dev/null || ! command -v "php-fpm$fpm" >/dev/null; then
    need_packages nginx nginx-light
    need_packages "php-fpm$fpm" "php$fpm-fpm"
    say "note: Debian starts the services of what it installs; the comparison runs its own, on other ports:" \
        "systemctl disable --now nginx php$fpm-fpm"
fi
need_packages haproxy haproxy
need_redis
need_packages valgrind valgrind
if ! command -v varnishd >/dev/null; then
    need_packages varnishd varnish
    say "note: Debian starts Varnish too: systemctl disable --now varnish varnishncsa"
fi

cargo build --release --locked -p bare-actix -p open-loop -p troupe
cargo build --release --locked -p troupe-cache --example policies
# Parts of the services by themselves, for counting instructions.
cargo build --release --locked -p troupe-balancer -p troupe-gateway --example pick --example hit
exec python3 loadtests/bench --bin-dir "${CARGO_TARGET_DIR:-target}/release" "$@"
