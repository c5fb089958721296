# What the scripts share: where they stand, how they speak, how they get a package of the system.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Everything the project installs for itself is in here, out of git and gone with `make clean`.
tools=$PWD/target/tools

say() { printf '» %s\n' "$*" >&2; }

# die WHAT [HINT...]: what is wrong, then what helps.
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    printf '  hint: %s\n' "$@" >&2
    exit 1
}

# skipped WHAT WHY: says that something could not be checked here. In CI that is an error, unless
# .ci/may-skip lists it with the reason; .ci/run prints what was skipped at its end.
skipped() {
    printf 'SKIPPED %s: %s\n' "$1" "$2" | tee -a "${EPP_SKIPPED:-/dev/null}" >&2
    [[ ${CI:-} != true ]] || grep -q "^$1: ." .ci/may-skip ||
        die "not checked: $1" "$2" "what CI may leave out is listed in .ci/may-skip, with the reason"
}

# apt_install WHY PACKAGE...: Debian packages, where we may install them without asking for a
# password; elsewhere the command to type.
apt_install() {
    local why=$1
    shift
    local command="apt-get install -y --no-install-recommends $*"
    local root=(env DEBIAN_FRONTEND=noninteractive)
    [[ $(id -u) == 0 ]] || root=(sudo -n "${root[@]}")
    if ! command -v apt-get >/dev/null; then
        die "$why: this system has no apt-get" "install what Debian calls: $*"
    elif ! "${root[@]}" true 2>/dev/null; then
        die "$why, and installing packages needs root" "sudo $command"
    fi
    say "$why: $command"
    # Twice: a fresh machine has no package lists yet, an old one has yesterday's.
    # shellcheck disable=SC2086 # a command and its arguments
    "${root[@]}" $command -qq >/dev/null 2>&1 ||
        { "${root[@]}" apt-get update -qq && "${root[@]}" $command -qq >/dev/null; } ||
        die "$why, and apt-get could not install it" "sudo apt-get update && sudo $command"
}

# Prints the command that runs pip, for a python3 with or without it.
find_pip() {
    command -v python3 >/dev/null || apt_install "packages come from PyPI" python3 python3-venv
    if python3 -m pip --version >/dev/null 2>&1; then
        echo python3 -m pip
        return
    fi
    python3 -c 'import ensurepip' 2>/dev/null || apt_install "python3 has no pip" python3-venv
    python3 -m venv "$tools/venv" >&2
    echo "$tools/venv/bin/python3" -m pip
}

# pip_install FOLDER FILE: the binary packages of PyPI that a file lists with their hashes, into a new
# folder. Nothing else is installed, and no other bytes than those that were hashed.
pip_install() {
    local folder=$1 pinned=$2 pip
    pip=$(find_pip)
    rm -rf "$folder"
    # pip warns root about the system's packages; these go into a folder of their own.
    # shellcheck disable=SC2086 # a command and its arguments
    PIP_ROOT_USER_ACTION=ignore $pip install --quiet --only-binary :all: --no-deps --require-hashes \
        --target "$folder" --requirement "$pinned"
}

# go_module NAME@VERSION SUM: prints where Go has fetched a module whose files have this checksum, as a
# go.sum has it. What the module itself needs Go compares with its checksum database.
go_module() {
    local found
    found=$(GOFLAGS=-mod=mod go mod download -json "$1" |
        python3 -c 'import json, sys; module = json.load(sys.stdin); print(module["Sum"], module["Dir"])') ||
        return 1
    [[ ${found%% *} == "$2" ]] ||
        die "the Go module $1 has other files than it had" "expected $2" "found ${found%% *}"
    echo "${found#* }"
}
