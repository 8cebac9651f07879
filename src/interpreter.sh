# Sourced by the scripts: root is this clone, python its interpreter, or the system's while there is no .venv.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$root/.venv/bin/python
[ -x "$python" ] || python=$(command -v python3) || {
    echo "$(basename "$0"): needs python3: install it, then run $root/run.sh once" >&2
    exit 2
}
export PYTHONPATH=$root/src:$root${PYTHONPATH:+:$PYTHONPATH}
