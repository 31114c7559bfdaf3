#!/bin/sh
# setup.sh PYTHON VENV: make the virtual environment and build the native parts into it.
# What Debian splits off from python3 is installed when that is possible, else named in one line.
set -eu
python=$1 venv=$2

needed=
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "xenintro needs Python 3.11 or newer; make PYTHON=..." >&2; exit 1; }
"$python" -c 'import ensurepip, venv' 2>/dev/null || needed="$needed python3-venv"
command -v cc >/dev/null || needed="$needed gcc libc6-dev"
"$python" -c 'import os, sysconfig; open(os.path.join(sysconfig.get_paths()["include"], "Python.h"))' 2>/dev/null ||
    needed="$needed python3-dev"
if [ -n "$needed" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing$needed" >&2
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $needed >/dev/null
    else
        echo "missing packages, please install:$needed" >&2
        exit 1
    fi
fi

[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
mkdir -p build/path && ln -sfn ../../cli build/path/xenintro_cli
echo "building xenintro into $venv" >&2
"$venv/bin/python" -m pip install -q --disable-pip-version-check -e '.[test,lint,wheel]'
