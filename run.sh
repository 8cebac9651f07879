#!/usr/bin/env bash
# Makes .venv, installs the pinned requirements and runs the moonjelly command with these arguments.
#   ./run.sh demo            the main job on this machine
#   ./run.sh test [--full]   the whole test suite as CI runs it
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$root/.venv
fail() { echo "run.sh: $*" >&2; exit 2; }

is_recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; }

pick_python() {
    if [ -n "${PYTHON:-}" ]; then
        command -v "$PYTHON" >/dev/null || fail "PYTHON=$PYTHON is not to be found"
        is_recent "$PYTHON" || fail "PYTHON=$PYTHON is not Python 3.10 or newer; name another"
        echo "$PYTHON"; return
    fi
    for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
        if command -v "$candidate" >/dev/null && is_recent "$candidate"; then echo "$candidate"; return; fi
    done
    fail "needs Python 3.10 or newer; install it, or name one with PYTHON=/path/to/python3"
}

make_venv() {
    [ -x "$venv/bin/python" ] && return
    local python; python=$(pick_python)
    if command -v uv >/dev/null; then
        uv venv --quiet --python "$(command -v "$python")" "$venv"
    elif "$python" -c 'import venv, ensurepip' 2>/dev/null; then
        "$python" -m venv "$venv"
    else
        fail "$python lacks the venv module: apt install python3-venv (or install uv), then run this again"
    fi
}

# pip's own configuration may name local wheels; uv does not read it, so hand them on.
find_links() {
    local python=$1 place
    for place in $("$python" -m pip config get :env:.find-links 2>/dev/null) $("$python" -m pip config get global.find-links 2>/dev/null) ${UV_FIND_LINKS:-}; do
        echo "--find-links"; echo "$place"
    done
}

install() {  # install FILE: once per content of FILE and place of the clone, which the last lines write down
    local file=$1 stamp=$venv/.installed-$1 digest
    digest=$({ echo "$root"; cat "$root/requirements.txt" "$root/$file"; } | sha256sum | cut -d' ' -f1)
    [ "$(cat "$stamp" 2>/dev/null)" = "$digest" ] && return
    echo "run.sh: installing $file into .venv (once)" >&2
    if command -v uv >/dev/null; then
        mapfile -t links < <(find_links "$(pick_python)")
        uv pip install --quiet --compile-bytecode --python "$venv/bin/python" "${links[@]}" -r "$root/$file"
    else  # an interrupted venv has no pip yet, and uv's has none
        "$venv/bin/python" -c 'import pip' 2>/dev/null || "$venv/bin/python" -m ensurepip >/dev/null 2>&1 ||
            fail "$venv has no pip: apt install python3-venv (or install uv), then run this again"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$root/$file"
    fi
    "$venv/bin/python" - "$root" <<'PY'
import pathlib, shlex, sys, sysconfig
root = pathlib.Path(sys.argv[1])
command = pathlib.Path(sysconfig.get_path("scripts"), "moonjelly")
command.write_text(f'#!/bin/sh\nexec {shlex.quote(str(root / "run.sh"))} "$@"\n')
command.chmod(0o755)
pathlib.Path(sysconfig.get_path("purelib"), "moonjelly-clone.pth").write_text(f"{root / 'src'}\n{root}\n")
PY
    echo "$digest" > "$stamp"
}

# Where PYTHONDONTWRITEBYTECODE is set, as containers like to, every process of the server would compile every module anew.
compile_sources() {  # once per change of the sources; a clone that cannot be written to is run as it is
    local stamp=$venv/.compiled changed=$root/src
    if [ -e "$stamp" ]; then changed=$(find "$root"/{src,network_shaping,plots} -name '*.py' -newer "$stamp" -print -quit); fi
    [ -z "$changed" ] && return
    if touch "$stamp" 2>/dev/null; then "$venv/bin/python" -m compileall -qq "$root"/{src,network_shaping,plots} || true; fi
}

make_venv
install requirements.txt
if [ "${1:-}" = test ]; then install requirements-dev.txt; fi
compile_sources
export PATH="$venv/bin:$PATH"
if [ -d "$root/../shared/data" ]; then export MOONJELLY_DATA=${MOONJELLY_DATA:-$root/../shared/data}; fi
exec "$venv/bin/python" -m cli "$@"
