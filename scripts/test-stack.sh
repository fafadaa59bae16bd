#!/usr/bin/env bash
# The stack in containers, broken in every way that is foreseen, under load. Builds this machine's release binary (unless
# TROUPE_BINARY names one, and TROUPE_NEXT_BINARY one of the next protocol version) and the images around it; arguments go to
# docker/tests (--only WORD,..., --list, --keep).
# Exit codes: 0 all passed, 1 something failed, 2 usage, 69 no Docker engine, or something is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh
# shellcheck source=scripts/compose.sh
. scripts/compose.sh
# shellcheck source=scripts/images.sh
. scripts/images.sh

case " $* " in *" --help "* | *" -h "* | *" --list "*) exec python3 docker/tests "$@" ;; esac

need_compose
need_packages python3 python3-minimal
# Whether a scenario with this word in its name is asked for.
asked_for() { case " $* " in *" --only "*"$1"* | *" --only="*"$1"*) return 0 ;; *" --only"*) return 1 ;; esac; }

if [ -z "${TROUPE_BINARY:-}" ] && asked_for protocol "$@"; then next_binary; fi
release_binary
if asked_for clocks "$@" && [ ! -e /usr/lib/x86_64-linux-gnu/faketime ]; then
    (install_packages "libfaketime" libfaketime) || say "without it, clocks are not tested"
fi

images "$TROUPE_BINARY" test prebuilt:troupe prebuilt-php:troupe-php edge:troupe-edge
[ -z "${TROUPE_NEXT_BINARY:-}" ] || images "$TROUPE_NEXT_BINARY" test-next prebuilt:troupe prebuilt-php:troupe-php
# What runs the load tests in a container: its base, which may not be here, is not ours to fetch for a test.
python=${TROUPE_BASE_PYTHON:-python:3.11-slim-bookworm}
if asked_for load "$@" || asked_for locust "$@"; then
    if docker image inspect "$python" >/dev/null 2>&1; then
        say "== image troupe-load:test"
        docker build -q -f loadtests/Dockerfile --build-arg BASE_PYTHON="$python" -t troupe-load:test loadtests >&2
    else
        say "without the image $python, the load tests are not run in a container"
    fi
fi

say "== faults"
python3 docker/tests --compose "${COMPOSE[*]}" --tag test "$@"
