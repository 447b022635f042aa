#!/usr/bin/env bash
# Builds the environment in $1 from requirements.lock, reports a missing prerequisite in one line, and fetches Delta's jars once.
set -euo pipefail
venv=$1
python=${PYTHON:-python3.11}

say() { printf 'make env: %s\n' "$*" >&2; exit 1; }

command -v "$python" >/dev/null || say "Python 3.11 is missing (set PYTHON=/path/to/python3.11)"
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || say "$python is not Python 3.11"
java=${JAVA_HOME:+$JAVA_HOME/bin/}java
command -v "$java" >/dev/null || say "Java 17 is missing (install a JDK 17, or set JAVA_HOME)"
version=$("$java" -version 2>&1 | sed -nE 's/.*version "([0-9]+).*/\1/p')
[ "${version:-0}" -ge 17 ] || say "Java 17 or newer is needed, $java is version ${version:-unknown}"

if command -v uv >/dev/null; then
    uv=(uv)
elif "$python" -m uv --version >/dev/null 2>&1; then
    uv=("$python" -m uv)
else
    bootstrap=$venv-uv  # a small separate environment leaves the user's Python unchanged
    [ -x "$bootstrap/bin/uv" ] || { "$python" -m venv "$bootstrap" && "$bootstrap/bin/pip" install -q uv; }
    uv=("$bootstrap/bin/uv")
fi
echo "make env: installing the locked packages (a few GB the first time) …" >&2
[ -x "$venv/bin/python" ] || "${uv[@]}" venv -q --python "$python" "$venv"
# compile bytecode now: with PYTHONDONTWRITEBYTECODE or a read-only .venv every process would compile torch and MLflow again
"${uv[@]}" pip sync -q --compile-bytecode --python "$venv/bin/python" requirements.lock
"${uv[@]}" pip install -q --python "$venv/bin/python" --no-deps -e .
"$venv/bin/python" tools/fetch_jars.py
"$venv/bin/python" tools/archive_classes.py || echo "make env: no archive of Java classes; jobs start more slowly" >&2
