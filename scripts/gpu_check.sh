#!/usr/bin/env bash
# Correctness and speed on a GPU in one command, under 8 minutes; the report goes to gpu_check.md.
#   scripts/gpu_check.sh [--device cuda] [--tiny] [--output FILE]
# Packages missing on the machine are taken from a folder wheels/ beside it, if there is one.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ -d wheels ]; then
  pip install --quiet --no-index --find-links wheels --no-deps wheels/*.whl
fi
PYTHONPATH=. exec python scripts/gpu_check.py "$@"
