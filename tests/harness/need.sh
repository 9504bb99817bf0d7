# Sourced by ./demo and ./test: what must be there before anything else can be installed.
# Sets `python` to an interpreter of version 3.10 or later; ends the script with advice if something is missing.

lack() {
    printf '%s: %s\n' "$0" "$1" >&2
    shift
    printf '    %s\n' "$@" >&2
    exit 1
}

find_python() {
    for python in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11 python3.10; do
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2> /dev/null && return
    done
    lack "Python 3.10 or later is needed and was not found. On Debian and Ubuntu:" "sudo apt-get install python3 python3-venv"
}

find_rust() {
    PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
    local wanted found advice
    wanted=$(sed -n 's/^channel = "\(.*\)"/\1/p' rust-toolchain.toml)
    advice=("curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y" "(see https://rustup.rs; then start a new shell, or: . ~/.cargo/env)")
    command -v cargo > /dev/null || lack "Rust $wanted is needed to build Waypost, and cargo was not found. To get it:" "${advice[@]}"
    if ! command -v rustup > /dev/null; then
        found=$(cargo --version | cut -d' ' -f2)
        [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ] ||
            lack "Rust $wanted or later is needed, and cargo is version $found. To get it:" "${advice[@]}"
    fi
    command -v cc > /dev/null || lack "a C compiler is needed to link and was not found. On Debian and Ubuntu:" "sudo apt-get install build-essential"
}
