# shellcheck shell=bash
# Docker's engine and its compose, whichever of the two there is. Sourced after requirements.sh.

# need_compose: sets the array COMPOSE to what runs compose files here; exits 69 where there is no engine.
need_compose() {
    if ! command -v docker >/dev/null; then
        unavailable "docker is not installed" "on Debian: sudo apt-get install docker.io docker-compose"
    fi
    local said
    if ! said=$(docker info --format '{{.ServerVersion}}' 2>&1) || [ -z "$said" ]; then
        unavailable "no Docker engine answers: ${said##*$'\n'}" "start one (systemctl start docker), or let your user talk to it"
    fi
    if docker compose version >/dev/null 2>&1; then
        COMPOSE=(docker compose)
    elif command -v docker-compose >/dev/null; then
        COMPOSE=(docker-compose)
    else
        unavailable "neither 'docker compose' nor docker-compose is installed" "on Debian: sudo apt-get install docker-compose"
    fi
}
