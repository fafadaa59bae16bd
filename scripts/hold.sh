# shellcheck shell=bash
# New connections to a port of this machine, held back while nobody listens there. Their first packets are dropped; their clients'
# kernels send them again after 1, 3 and 7 s, and nothing is noticed but that. Sourced after requirements.sh.

# By then a hold ends, whatever has become of whoever asked for it: nothing may leave a port dead.
readonly HOLD_SECONDS_AT_MOST=60
# Tells this hold from every other one.
readonly HOLD_MARK="troupe-hold-$$"

# while_held PORT COMMAND...: runs the command while connections to the port are held back. Where they cannot be (it takes root and
# iptables, on the engine's own machine), it says so and runs the command all the same.
while_held() {
    local port=$1 code=0
    shift
    if ! hold "$port"; then
        say "note: connections are refused meanwhile: to hold them back takes root and iptables, on the engine's machine"
        "$@"
        return
    fi
    # shellcheck disable=SC2064 # the port that is held now
    trap "release '$port'" EXIT
    "$@" || code=$?
    release "$port"
    trap - EXIT
    return "$code"
}

hold() {
    case ${DOCKER_HOST:-unix://} in unix://*) ;; *) return 1 ;; esac
    # Whoever ends it comes before there is anything to end.
    as_root setsid -f bash -c "sleep $HOLD_SECONDS_AT_MOST; $(declare -f as_root first_packets release); HOLD_MARK=$HOLD_MARK; release $1" \
        </dev/null >/dev/null 2>&1 || return 1
    first_packets iptables -I "$1" 2>/dev/null || return 1
    # Not every machine has IPv6.
    first_packets ip6tables -I "$1" 2>/dev/null || true
}

release() {
    first_packets iptables -D "$1" 2>/dev/null || true
    first_packets ip6tables -D "$1" 2>/dev/null || true
}

# Ahead of Docker's own rules, and on the way of what comes from this machine itself.
first_packets() {
    as_root env PATH="$PATH:/usr/sbin:/sbin" \
        "$1" -w 5 -t raw "$2" PREROUTING -p tcp --syn --dport "$3" -m comment --comment "$HOLD_MARK" -j DROP
}
