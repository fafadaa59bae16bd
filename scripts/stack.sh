#!/usr/bin/env bash
# The stack in containers: `stack.sh up [ARGUMENTS OF COMPOSE]` builds, starts and waits until it serves; `stack.sh down` ends it;
# `stack.sh roll SERVICE` replaces its containers one by one, each new one being ready before an old one drains; the edge, which owns
# the port, while connections to it are held back.
# Exit codes: 0 done, 1 failed, 2 usage, 69 no Docker engine or no compose.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=scripts/requirements.sh
. scripts/requirements.sh
# shellcheck source=scripts/compose.sh
. scripts/compose.sh
# shellcheck source=scripts/hold.sh
. scripts/hold.sh

# How long a container may take from its start to its health; PHP loads its code meanwhile.
readonly READY_SECONDS=90
# How long what is under way at the edge may take before it is cut off. New connections wait for it.
readonly EDGE_SECONDS=10
# Clients that are at work hear within it, by an answer, that their connection ends.
readonly LEAVE_SECONDS=2

# containers SERVICE: the ids of those that run.
containers() { "${COMPOSE[@]}" ps -q "$1"; }

# has_time DEADLINE CONTAINER: false once it is past, and then it says how far the container has come.
has_time() {
    [ "$SECONDS" -ge "$1" ] || return 0
    say "error: container ${2:0:12} is $(docker inspect --format '{{.State.Health.Status}}' "$2") after $READY_SECONDS s; its log ends:"
    docker logs --tail 20 "$2" >&2
    return 1
}

# wait_healthy CONTAINER...
wait_healthy() {
    local id status deadline=$((SECONDS + READY_SECONDS))
    for id in "$@"; do
        while status=$(docker inspect --format '{{.State.Health.Status}}' "$id") && [ "$status" != healthy ]; do
            has_time "$deadline" "$id" || return 1
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

# Two cannot have one port: clients give up the connections they keep, and new ones wait until the next edge serves.
roll_edge() {
    local old
    mapfile -t old < <(containers edge)
    if [ ${#old[@]} -ne 1 ]; then
        say "error: ${#old[@]} containers of edge run, not one"
        exit 1
    fi
    # One from before there was this script does without.
    if docker exec "${old[0]}" /etc/troupe-edge/leave.sh; then sleep "$LEAVE_SECONDS"; fi
    while_held "${TROUPE_PORT:-8080}" replace_edge "${old[0]}"
    say "edge: replaced"
}

replace_edge() {
    # Whoever came just before has sent its request by then.
    sleep 0.3
    { docker stop -t "$EDGE_SECONDS" "$1" && docker rm "$1"; } >/dev/null || return 1
    "${COMPOSE[@]}" up -d --no-deps edge >&2 || return 1
    local new deadline=$((SECONDS + READY_SECONDS))
    new=$(containers edge) || return 1
    # Asked by ourselves: the engine asks every few seconds.
    until docker exec "$new" /etc/troupe-edge/healthy.sh; do
        has_time "$deadline" "$new" || return 1
        sleep 0.1
    done
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
            edge) need_compose && roll_edge ;;
            *)
                say "usage: scripts/stack.sh roll edge|gateway|balancer|php-pool|cache|metrics"
                exit 2
                ;;
        esac
        ;;
    *)
        say "usage: scripts/stack.sh up [ARGUMENTS OF COMPOSE] | down | roll SERVICE"
        exit 2
        ;;
esac
