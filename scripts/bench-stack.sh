#!/usr/bin/env bash
# The composed stack beside nginx with php-fpm in containers and beside Troupe in one process, and as it is scaled; one report.
# Builds this machine's release binary (unless TROUPE_BINARY names one) and the images; arguments go to loadtests/containers.
# Exit codes: 0 a report was written, 1 requests failed: no report, 2 usage, 3 a goal was missed, 69 no Docker engine, or something is
# missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh
# shellcheck source=scripts/compose.sh
. scripts/compose.sh
# shellcheck source=scripts/images.sh
. scripts/images.sh

case " $* " in *" --help "* | *" -h "*) exec python3 loadtests/containers "$@" ;; esac

need_compose
need_packages python3 python3-minimal
need_packages wrk wrk
need_packages ab apache2-utils
release_binary
images "$TROUPE_BINARY" test prebuilt:troupe prebuilt-php:troupe-php edge:troupe-edge
say "== image troupe-beside-fpm:test"
docker build -q --build-arg BASE="${TROUPE_BASE:-debian:bookworm-slim}" -t troupe-beside-fpm:test loadtests/containers/fpm >&2
PYTHONDONTWRITEBYTECODE=1 exec python3 loadtests/containers --compose "${COMPOSE[*]}" "$@"
