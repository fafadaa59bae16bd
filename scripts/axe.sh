#!/usr/bin/env bash
# Gets axe-core, with which the tests look at the dashboard's accessibility in a browser, below target/. Without npm or a
# network the tests leave that out, so this never fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh

readonly VERSION=4.10.3
readonly TARGET=target/axe

if grep -qs "\"version\": \"$VERSION\"" "$TARGET/node_modules/axe-core/package.json"; then exit 0; fi
if ! command -v npm >/dev/null || ! command -v chromedriver >/dev/null; then
    say "== axe: skipped, npm or chromedriver is not installed (apt-get install npm chromium-driver)"
    exit 0
fi
mkdir -p "$TARGET"
npm install --prefix "$TARGET" --no-save --no-audit --no-fund --loglevel=error "axe-core@$VERSION" >&2 ||
    say "== axe: skipped, it could not be downloaded"
