#!/bin/sh
# Makes .venv with exactly the locked packages. Installs Debian's venv module when it is missing and we may.
set -eu
python="$1"
cd "$(dirname "$0")/.."

if ! "$python" -c 'import sys; raise SystemExit(sys.version_info < (3, 11))'; then
    echo "Gridtide needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11" >&2
    exit 1
fi
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "Python's venv module is missing; as root: apt-get install python3-venv" >&2
        exit 1
    fi
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv
fi
[ -x .venv/bin/python ] || "$python" -m venv .venv
echo "Installing the locked packages (a minute or two the first time) ..."
# The lock names everything, so pip has nothing to resolve (--no-deps); asked to, it would stumble over a newer release of
# what a package wants with an extra.
.venv/bin/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
.venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
