#!/usr/bin/env bash
# Makes .venv with everything in requirements-dev.txt. Called by every make target that needs Python.
# Does nothing when the requirements did not change since; may be interrupted and run again, also twice at once.
set -euo pipefail
cd "$(dirname "$0")/.."

requirements=(constraints.txt requirements.txt app/requirements.txt requirements-dev.txt)
wanted="$(pwd) $(cat "${requirements[@]}" tools/bootstrap.sh | cksum)"
stamp=.venv/.shipmate-installed

is_current() { [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && .venv/bin/python -c '' 2>/dev/null; }

# A shim may be on PATH and fail when it is run, so each candidate is asked for its version.
is_python313() { "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 13))' >/dev/null 2>&1; }

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.13 python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python3.13 \
    "$(uv python find --no-project 3.13 2>/dev/null)"; do
    if [ -n "$candidate" ] && is_python313 "$candidate"; then
      echo "$candidate"
      return
    fi
  done
  cat >&2 <<'MESSAGE'
✗ Python 3.13 was not found (with venv and ensurepip). Tried $PYTHON, python3.13, python3, pyenv's versions and uv's.
  Install it in one of these ways, then run make again:
    Debian 13, Ubuntu 25.04 or later   apt-get install python3.13 python3.13-venv
    pyenv                              pyenv install 3.13
    uv                                 uv python install 3.13
    macOS                              brew install python@3.13
  One that is elsewhere:               make <target> PYTHON=/path/to/python3.13
MESSAGE
  return 1
}

if is_current; then exit 0; fi
if command -v flock >/dev/null; then
  exec 9<requirements-dev.txt
  flock 9
  if is_current; then exit 0; fi
fi

# The programs in .venv/bin name the folder they were made in: a copied tree makes its own.
is_ours() { is_python313 .venv/bin/python && grep -qF "$(pwd)/.venv" .venv/pyvenv.cfg && .venv/bin/python -m pip --version >/dev/null 2>&1; }

if ! is_ours; then
  python=$(find_python)
  if [ -L .venv ]; then rm .venv; fi # a link to another tree's: that one is not ours to clear
  echo "► .venv is made with $("$python" --version)" >&2
  "$python" -m venv --clear .venv
fi
echo "► packages of requirements-dev.txt are installed into .venv (about a minute the first time)" >&2
rm -f "$stamp"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt >&2
echo "$wanted" >"$stamp"
echo "✔ .venv is ready" >&2
