#!/usr/bin/env bash
# Makes or completes the virtual environment that everything else runs in.
#
#   setup_env.sh VENV venv            create it, with a Python of 3.10 or newer ($PYTHON if set)
#   setup_env.sh VENV deps TORCH      build tools, torch (kept if one is importable) and runtime needs
#   setup_env.sh VENV group NAME...   requirements of the named extras of pyproject.toml
#   setup_env.sh VENV build           mmcore itself, editable; compiles only what changed
#
# Nothing is installed outside VENV. With MMCORE_OFFLINE=1 it may use what the system's Python has
# and asks no package index.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
venv=$1
step=$2
shift 2
cd "$root"

say() { printf '[mmcore] %s\n' "$*" >&2; }
die() { printf '[mmcore] error: %s\n' "$*" >&2; exit 1; }

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
      printf '%s' "$candidate"
      return
    fi
  done
  die "no Python of 3.10 or newer found (tried: ${PYTHON:-python3, python3.13 to python3.10}). Install one, or name it: make PYTHON=/path/to/python3.11"
}

pip() { "$venv/bin/python" -m pip -qq --disable-pip-version-check "$@"; }
# Words of pyproject.toml never hold spaces, so that xargs may split them.
requirements() { "$venv/bin/python" scripts/requirements.py "$@" | xargs; }

case $step in
  venv)
    [[ -x $venv/bin/python ]] && exit 0
    python=$(find_python)
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
      die "$python cannot make virtual environments. On Debian: apt-get install python3-venv"
    say "making $venv with $("$python" --version)"
    "$python" -m venv ${MMCORE_OFFLINE:+--system-site-packages} "$venv"
    ;;
  deps)
    if ! command -v "${CXX:-c++}" >/dev/null; then
      die "no C++ compiler. On Debian: apt-get install g++ (12 or newer), or name one in CXX"
    fi
    "$venv/bin/python" - <<'PY' || die "the headers of this Python are missing. On Debian: apt-get install python3-dev"
import pathlib, sys, sysconfig
sys.exit(not (pathlib.Path(sysconfig.get_paths()["include"]) / "Python.h").exists())
PY
    [[ -n ${MMCORE_OFFLINE:-} ]] && exit 0
    if "$venv/bin/python" -c 'import torch' 2>/dev/null; then
      say "keeping torch $("$venv/bin/python" -c 'import torch; print(torch.__version__)')"
    else
      say "installing $1 (the largest part)"
      # shellcheck disable=SC2086 # TORCH may carry options such as --index-url
      pip install $1
    fi
    say "installing build tools and runtime requirements"
    # shellcheck disable=SC2046
    pip install $(requirements build runtime)
    ;;
  group)
    [[ -n ${MMCORE_OFFLINE:-} ]] && exit 0
    say "installing requirements: $*"
    # shellcheck disable=SC2046
    pip install $(requirements "$@")
    ;;
  build)
    say "building mmcore (compiles what changed)"
    PATH="$(cd "$venv/bin" && pwd):$PATH" pip install --no-build-isolation --no-deps --editable .
    ;;
  *) die "unknown step '$step'" ;;
esac
