#!/usr/bin/env bash
# The stack in containers: `stack.sh up [ARGUMENTS OF COMPOSE]` builds, starts and waits until it serves; `stack.sh down` ends it;
# `stack.sh roll SERVICE` replaces its containers one by one, each new one being ready before an old one drains.
# Exit codes: 0 done, 1 failed, 2 usage, 69 no Docker engine or no compose.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh
# shellcheck source=scripts/compose.sh
. scripts/compose.sh

# How long a container may take from its start to its health; PHP loads its code meanwhile.
readonly READY_SECONDS=90

# containers SERVICE: the ids of those that run.
containers() { "${COMPOSE[@]}" ps -q "$1"; }

# wait_healthy CONTAINER...
wait_healthy() {
    local id status deadline=$((SECONDS + READY_SECONDS))
    for id in "$@"; do
        while status=$(docker inspect --format '{{.State.Health.Status}}' "$id") && [ "$status" != healthy ]; do
            if [ "$SECONDS" -ge "$deadline" ]; then
                say "error: container ${id:0:12} is $status after $READY_SECONDS s; its log ends:"
                docker logs --tail 20 "$id" >&2
                return 1
            fi
            sleep 0.3
        done
    done
}

up() {
    TROUPE_REVISION=${TROUPE_REVISION:-$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)}
    export TROUPE_REVISION
    "${COMPOSE[@]}" up -d --build "$@" >&2
    local edge
    mapfile -t edge < <(containers edge)
    [ ${#edge[@]} -eq 0 ] || wait_healthy "${edge[@]}"
    echo "ready http://127.0.0.1:${TROUPE_PORT:-8080}"
}

# One more than before, until every old one is gone: there is always as much serving as there was.
roll() {
    local service=$1 old count id new
    mapfile -t old < <(containers "$service")
    count=${#old[@]}
    if [ "$count" -eq 0 ]; then
        say "error: no container of $service runs"
        exit 1
    fi
    for id in "${old[@]}"; do
        "${COMPOSE[@]}" up -d --no-deps --no-recreate --scale "$service=$((count + 1))" "$service" >&2
        mapfile -t new < <(containers "$service")
        wait_healthy "${new[@]}"
        settle "$service"
        docker stop "$id" >/dev/null
        docker rm "$id" >/dev/null
    done
    say "$service: $count replaced"
}

# The edge asks for a new gateway's health, and what calls a service hears of a new instance from Redis, within two seconds; if
# not from there, it looks names up every five.
settle() { case $1 in gateway) sleep 2 ;; *) sleep 6 ;; esac; }

[ $# -gt 0 ] || set -- up
verb=$1
shift
case $verb in
    up) need_compose && up "$@" ;;
    down) need_compose && "${COMPOSE[@]}" --profile load --profile observe --profile tools down --remove-orphans "$@" >&2 ;;
    roll)
        case ${1:-} in
            gateway | balancer | php-pool | cache | metrics) need_compose && roll "$1" ;;
            *)
                say "usage: scripts/stack.sh roll gateway|balancer|php-pool|cache|metrics"
                exit 2
                ;;
        esac
        ;;
    *)
        say "usage: scripts/stack.sh up [ARGUMENTS OF COMPOSE] | down | roll SERVICE"
        exit 2
        ;;
esac
