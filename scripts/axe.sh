#!/usr/bin/env bash
# Gets axe-core, with which the tests look at the dashboard's accessibility in a browser, below target/. Exit codes: 0 it is
# there, or TESTS_WITHOUT says that it is not wanted; 69 it could not be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh

readonly VERSION=4.10.3
readonly TARGET=target/axe

if grep -qs "\"version\": \"$VERSION\"" "$TARGET/node_modules/axe-core/package.json"; then exit 0; fi
if ! wanted axe || ! wanted chromium; then exit 0; fi
command -v npm >/dev/null || unavailable "npm is missing, which gets axe-core" "run: sudo apt-get install npm" \
    "or leave its checks out: TESTS_WITHOUT=axe"
mkdir -p "$TARGET"
npm install --prefix "$TARGET" --no-save --no-audit --no-fund --loglevel=error "axe-core@$VERSION" >&2 ||
    unavailable "axe-core could not be downloaded" "see npm's message above" "or leave its checks out: TESTS_WITHOUT=axe"
