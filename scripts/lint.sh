#!/usr/bin/env bash
# Everything that can be said about the code without running it. Changes nothing; every check runs, then the failed
# ones are named. Exit codes: 0 clean, 1 something to fix, 69 a tool is missing and cannot be installed here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh

readonly MAX_LINES=500
# Workspaces of their own: they are built with other flags.
readonly FUZZ_MANIFESTS=(shared/wire/fuzz/Cargo.toml services/cache/fuzz/Cargo.toml)
# The crates that the project is given to build on: all of them stand in the workspace's dependencies.
readonly GIVEN=(actix actix-web actix-rt tokio serde config deadpool redis metrics metrics-exporter-prometheus)

# sources PATTERN...: the project's own files with such names; what is built or fetched is not ours.
sources() {
    local names=(-name "$1") pattern
    for pattern in "${@:2}"; do names+=(-o -name "$pattern"); done
    find . \( -name target -o -name .git -o -name vendor -o -name node_modules \) -prune \
        -o -type f \( "${names[@]}" \) -print0
}

rust_format() {
    cargo fmt --all -- --check || return
    local manifest
    for manifest in "${FUZZ_MANIFESTS[@]}"; do
        [ ! -f "$manifest" ] || cargo fmt --manifest-path "$manifest" -- --check || return
    done
}
rust_clippy() { cargo clippy --workspace --all-targets --locked --quiet -- -D warnings; }
# Fuzz targets are built by nobody but who fuzzes, and must not rot until then. Beside the rest, so that what both need is
# checked once; libFuzzer itself is C++ and would only be linked, so any path does for it.
fuzz_targets() {
    local manifest
    for manifest in "${FUZZ_MANIFESTS[@]}"; do
        CUSTOM_LIBFUZZER_PATH=/nowhere/libFuzzer.a cargo check --locked --quiet --manifest-path "$manifest" \
            --target-dir "${CARGO_TARGET_DIR:-target}" || return
    done
}
rust_docs() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet; }

file_sizes() {
    local file lines long=0
    while IFS= read -r -d '' file; do
        lines=$(wc -l <"$file")
        if [ "$lines" -gt "$MAX_LINES" ]; then
            say "$file: $lines lines, at most $MAX_LINES: split it by subject"
            long=1
        fi
    done < <(sources '*.rs' '*.php' '*.sh' '*.py' '*.lua')
    return "$long"
}

given_crates() {
    local declared crate missing=0 unused=()
    declared=$(sed -n '/^\[workspace\.dependencies\]/,/^\[workspace\.lints/p' Cargo.toml)
    for crate in "${GIVEN[@]}"; do
        if ! grep -qE "^$crate *=" <<<"$declared"; then
            say "Cargo.toml: $crate is not in [workspace.dependencies]"
            missing=1
        elif ! grep -qE "^$crate(\.workspace)? *=" shared/*/Cargo.toml services/*/Cargo.toml; then
            unused+=("$crate")
        fi
    done
    [ ${#unused[@]} -eq 0 ] || say "declared, not used by a member yet: ${unused[*]}"
    return "$missing"
}

ignored_tests() {
    if sources '*.rs' | xargs -0 grep -nE '#\[ignore *\]'; then
        say 'an ignored test says why: #[ignore = "reason"]'
        return 1
    fi
}

php_syntax() {
    local file redeclared broken=0
    # The runtime takes the place of some of PHP's own functions, which PHP allows only where those are disabled.
    redeclared=$(sed -nE 's/^ *function ([a-z0-9_]+)\(.*/\1/p' services/php-pool/runtime/*_functions.php 2>/dev/null |
        paste -sd , -)
    while IFS= read -r -d '' file; do
        # Silent about good files; the message about a bad one names file and line.
        php -d display_errors=stderr -d log_errors=0 -d disable_functions="$redeclared" -l "$file" >/dev/null || broken=1
    done < <(sources '*.php')
    return "$broken"
}

python_syntax() {
    sources '*.py' | xargs -0 python3 -c 'import ast, sys; [ast.parse(open(name).read(), name) for name in sys.argv[1:]]'
}

shell_scripts() { { sources '*.sh' && printf './.ci/run\0'; } | xargs -0 shellcheck --external-sources; }
dependency_rules() { cargo deny --locked check licenses bans sources; }
unused_dependencies() { cargo machete; }
rules() { scripts/rules.sh >&2; }

failed=()
check() {
    say "== $1"
    "$2" || failed+=("$1")
}
# check_with COMMAND TITLE FUNCTION: only where the tool is there; what was not looked at is said.
check_with() {
    if command -v "$1" >/dev/null; then check "$2" "$3"; else say "== $2: skipped: $1 is not installed"; fi
}

need_cargo
need_component fmt rustfmt
need_component clippy clippy
need_php

# The cheap ones first: who waits for clippy should not learn of a missing blank only then.
check "rustfmt" rust_format
check "files of at most $MAX_LINES lines" file_sizes
check "given crates" given_crates
check "ignored tests" ignored_tests
check "PHP syntax" php_syntax
check_with python3 "Python syntax" python_syntax
check_with shellcheck "shell scripts" shell_scripts
check_with promtool "rules and dashboards" rules
check_with cargo-deny "licences, bans, sources" dependency_rules
check_with cargo-machete "unused dependencies" unused_dependencies
check "clippy" rust_clippy
check "fuzz targets" fuzz_targets
check "documentation" rust_docs

if [ ${#failed[@]} -gt 0 ]; then
    printf -v list '%s, ' "${failed[@]}"
    say "lint: ${#failed[@]} to fix: ${list%, }"
    exit 1
fi
say "lint: clean"
