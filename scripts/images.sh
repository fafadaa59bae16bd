# shellcheck shell=bash
# Images around a program of this machine, for tests and measurements. Sourced after requirements.sh.

# release_binary: sets TROUPE_BINARY to this tree's release build, unless it names one already.
release_binary() {
    [ -z "${TROUPE_BINARY:-}" ] || return 0
    need_cargo
    cargo build --release --locked --bin troupe
    TROUPE_BINARY=${CARGO_TARGET_DIR:-target}/release/troupe
}

# next_binary: sets TROUPE_NEXT_BINARY to an instance of the next protocol version, unless it names one already. Without optimisation, so
# that it shares its dependencies with the tests.
next_binary() {
    [ -z "${TROUPE_NEXT_BINARY:-}" ] || return 0
    need_cargo
    cargo build --locked --bin troupe --features next-protocol
    TROUPE_NEXT_BINARY=${CARGO_TARGET_DIR:-target}/debug/troupe
}

# images BINARY TAG TARGET:IMAGE...: the targets of docker/Dockerfile that copy the host's binary.
images() {
    local binary=$1 tag=$2 image context revision
    shift 2
    # They need a binary and a few small files: a context of its own saves sending target/ to the engine.
    context=$(mktemp -d)
    mkdir -p "$context/target/release"
    cp -r LICENSE troupe.toml functions docker "$context"
    cp "$binary" "$context/target/release/troupe"
    # What a debugger needs is ten times the program.
    strip --strip-debug "$context/target/release/troupe" 2>/dev/null || true
    revision=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
    for image in "$@"; do
        say "== image ${image#*:}:$tag"
        if ! docker build -q -f "$context/docker/Dockerfile" --target "${image%%:*}" --build-arg REVISION="$revision" \
            --build-arg BASE="${TROUPE_BASE:-debian:bookworm-slim}" -t "${image#*:}:$tag" "$context" >&2; then
            rm -rf "$context"
            return 1
        fi
    done
    rm -rf "$context"
}
