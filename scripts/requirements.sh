# shellcheck shell=bash
# What the other scripts need from the machine, and how it gets there. Sourced, not run.
#
# Each `need_*` function returns at once when its tool is there, installs it where it may (root or sudo on a machine
# with apt-get), and otherwise says which command would, and exits 69 ("a dependency is unavailable").

readonly EXIT_UNAVAILABLE=69
# The workspace's rust-version, for the message only: cargo itself refuses an older compiler.
readonly RUST_VERSION=1.95

# stdout belongs to the program that is run in the end (`ready http://...`); everything said here goes to stderr.
say() { printf '%s\n' "$*" >&2; }

unavailable() {
    say "error: $1"
    shift
    local line
    for line in "$@"; do say "  $line"; done
    exit "$EXIT_UNAVAILABLE"
}

# Runs its arguments as root. Fails without asking where a password would be needed and nobody is there to type it.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        sudo "$@"
    else
        return 1
    fi
}

apt_get() {
    # The lock timeout lets a machine's own nightly update finish first.
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=120 "$@" >&2
}

# install_packages WHAT PACKAGE...: installs Debian packages for WHAT, by fresh lists: old ones name versions that mirrors have
# dropped, or that security updates have replaced.
install_packages() {
    local what=$1 manual
    shift
    manual="sudo apt-get update && sudo apt-get install -y $*"
    if ! command -v apt-get >/dev/null; then
        unavailable "$what is missing, and this machine has no apt-get to install it with" \
            "install the equivalent of these Debian packages, then run this again: $*"
    fi
    if ! as_root true; then
        unavailable "$what is missing, and installing it needs root" "run: $manual" "then run this again"
    fi
    say "installing $what: $*"
    # Without a network, what is in the cache may do.
    apt_get update || say "the package lists could not be refreshed; trying with those that are here"
    if ! apt_get install --no-install-recommends "$@"; then
        unavailable "$what could not be installed" "see apt-get's message above; by hand: $manual"
    fi
}

# need_packages COMMAND PACKAGE...: the command, from these Debian packages.
need_packages() {
    command -v "$1" >/dev/null || install_packages "$@"
}

# Cargo, and the C compiler that Rust links with.
need_cargo() {
    if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
        PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
    fi
    if ! command -v cargo >/dev/null; then
        unavailable "cargo, Rust's build tool, is not installed" \
            "install Rust $RUST_VERSION or newer with rustup, as the Rust project's web site describes" \
            "(newer Debian releases have it as a package too: apt-get install rustup && rustup default stable)," \
            "open a new shell, and run this again"
    fi
    need_packages cc gcc libc6-dev
}

# need_component COMMAND COMPONENT: a part of the Rust toolchain that a minimal installation leaves out.
need_component() {
    cargo "$1" --version >/dev/null 2>&1 && return
    if command -v rustup >/dev/null && rustup component add "$2" >&2; then return; fi
    unavailable "cargo $1 is missing" "run: rustup component add $2"
}

php_is_complete() {
    command -v php >/dev/null &&
        php -n -r 'exit(PHP_VERSION_ID >= 80100 ? 0 : 1);' &&
        php -r 'exit(extension_loaded("pcntl") && extension_loaded("posix")
            && extension_loaded("Zend OPcache") ? 0 : 1);'
}

# PHP's command line with pcntl, posix and opcache, which is what Debian's package has.
need_php() {
    php_is_complete && return
    local package=php8.2-cli
    if command -v apt-cache >/dev/null; then
        # Without lists nothing is known of any package; with lists, php8.2-cli is unknown to other releases.
        [ -n "$(apt-cache show php-cli 2>/dev/null)" ] || apt_get update || true
        [ -n "$(apt-cache show "$package" 2>/dev/null)" ] || package=php-cli
    fi
    install_packages "PHP with pcntl, posix and opcache" "$package"
    php_is_complete || unavailable "the php that is found first ($(command -v php || echo none)) is older than 8.1 or lacks pcntl, posix or opcache" \
        "check: php --version; php -m" "put a complete one first in PATH, then run this again"
}

# nginx and php-fpm, which the tests compare functions with. Their services stay as the machine has them.
need_fpm() {
    PATH="$PATH:/usr/sbin" need_packages nginx nginx-light
    PATH="$PATH:/usr/sbin" need_packages php-fpm8.2 php8.2-fpm
}

# A Redis server, for the tests of membership: they start servers of their own, on free ports.
need_redis() { need_packages redis-server redis-server; }

# wanted NAME: whether the tests that need this tool are to run: all but those that TESTS_WITHOUT names, apart by commas.
wanted() {
    case ",${TESTS_WITHOUT:-}," in
        *",$1,"*)
            say "== tests that need $1 are left out: TESTS_WITHOUT names it"
            return 1
            ;;
    esac
}

# need_tool NAME COMMAND PACKAGE...: what some of the tests need, which fail where it is missing.
need_tool() {
    local name=$1 command=$2
    shift
    if ! wanted "$name" || command -v "$command" >/dev/null; then return 0; fi
    say "$name is missing; TESTS_WITHOUT=$name leaves out the tests that need it"
    install_packages "$@"
}

# A browser under remote control, and what gets the checker that runs in it; a terminal; a counter of instructions.
need_browser() {
    need_tool chromium chromedriver chromium chromium-driver
    need_tool axe npm npm
}
need_tmux() { need_tool tmux tmux tmux; }
need_valgrind() { need_tool valgrind valgrind valgrind; }

# Prometheus's tool that checks rules and scrapes. The server that comes with it is not started.
need_promtool() { need_packages promtool prometheus; }
