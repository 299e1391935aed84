#!/usr/bin/env bash
# Makes .venv ready for work: Python >= 3.11, all packages at the versions of constraints.txt, DualPath itself
# editable. Says what it does; does nothing when nothing has changed. PYTHON=/path/to/python chooses another one.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
fail() {
    printf 'setup: %s\n  cause:  %s\n  remedy: %s\n' "$1" "$2" "$3" >&2
    exit 2
}
new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
complete() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }
as_root_with_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null && new_enough "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
}

apt_install() {
    say "installing $* with apt"
    apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >&2
}

# What the environment was made from; a change of any of it makes it anew.
wanted="$(cat pyproject.toml constraints.txt scripts/setup.sh | sha256sum | cut -d' ' -f1) $(pwd)"
stamp=.venv/.dualpath-setup
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; then
    exit 0
fi

python="$(find_python)"
if [ -z "$python" ] && as_root_with_apt; then
    apt_install python3 python3-venv
    python="$(find_python)"
fi
[ -n "$python" ] || fail "no Python 3.11 or newer" \
    "$(python3 --version 2>/dev/null || echo 'there is no python3 at all')" \
    "install one, or name it: PYTHON=/path/to/python3.12 make test"
if ! complete "$python" && as_root_with_apt; then
    apt_install "python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')-venv"
fi
complete "$python" || fail "$python cannot make virtual environments" "its module venv or ensurepip is missing" \
    "on Debian and Ubuntu: apt-get install python3-venv"

if ! { [ -x .venv/bin/python ] && new_enough .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1; }; then
    say "making .venv with $("$python" --version)"
    rm -rf .venv
    "$python" -m venv .venv
fi
rm -f "$stamp"

# uv is several times quicker; where it cannot be had, or fails, pip does the same.
if ! .venv/bin/python -m uv --version >/dev/null 2>&1; then
    say "installing uv"
    .venv/bin/python -m pip install -q -c constraints.txt uv || say "uv cannot be had; going on with pip"
fi
say "installing the packages of constraints.txt; the first time some minutes"
if .venv/bin/python -m uv --version >/dev/null 2>&1 \
    && .venv/bin/python -m uv pip install --python .venv/bin/python -q -c constraints.txt -e '.[dev]'; then
    :
else
    say "installing with pip"
    .venv/bin/python -m pip install -q -c constraints.txt -e '.[dev]' \
        || fail "the packages cannot be installed" "see the message of pip above" "check the network and pip's settings"
fi
# The client of Mooncake Store brings all but these along.
if ! .venv/bin/python -c 'import mooncake.store' >/dev/null 2>&1; then
    if as_root_with_apt; then
        apt_install --no-install-recommends libibverbs1 libnuma1 libcurl4 || true
    fi
    .venv/bin/python -c 'import mooncake.store' 2>/dev/null \
        || say "the distributed block store cannot be used: install libibverbs1, libnuma1 and libcurl4"
fi
printf '%s\n' "$wanted" >"$stamp"
say "done"
