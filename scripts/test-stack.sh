#!/usr/bin/env bash
# The stack in containers, broken in every way that is foreseen, under load. Builds this machine's release binary and the
# images around it; arguments go to docker/tests (--only WORD,..., --list, --keep).
# Exit codes: 0 all passed, 1 something failed, 2 usage, 69 no Docker engine, or something is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh
# shellcheck source=scripts/compose.sh
. scripts/compose.sh

case " $* " in *" --help "* | *" -h "* | *" --list "*) exec python3 docker/tests "$@" ;; esac

need_compose
need_packages python3 python3-minimal
if [ -z "${TROUPE_BINARY:-}" ]; then
    need_cargo
    cargo build --release --locked --bin troupe
    TROUPE_BINARY=${CARGO_TARGET_DIR:-target}/release/troupe
fi

# The images need a binary and a few small files: a context of its own saves sending target/ to the engine.
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/target/release"
cp -r LICENSE troupe.toml functions docker "$context"
cp "$TROUPE_BINARY" "$context/target/release/troupe"
revision=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
for image in prebuilt:troupe prebuilt-php:troupe-php edge:troupe-edge; do
    say "== image ${image#*:}:test"
    docker build -q -f "$context/docker/Dockerfile" --target "${image%%:*}" --build-arg REVISION="$revision" \
        --build-arg BASE="${TROUPE_BASE:-debian:bookworm-slim}" -t "${image#*:}:test" "$context" >&2
done

say "== faults"
python3 docker/tests --compose "${COMPOSE[*]}" --tag test "$@"
