#!/usr/bin/env bash
# Every check and figure that needs a GPU, in one call of a few minutes: bash scripts/gpu_check.sh
# Needs torch with CUDA; installs nothing. Uses the venv's Python, or the one in $PYTHON.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

"$PYTHON" - <<'PY' || exit 2
import sys, torch
if not torch.cuda.is_available():
    sys.exit("error[DEV01]: no GPU (torch.cuda.is_available() is False); fix: run this on a machine with one")
print(torch.__version__, torch.cuda.get_device_name(0))
PY
"$PYTHON" -m pytest -q -p no:cacheprovider tests/test_gpu.py tests/test_gpu_scan.py
status=$?
"$PYTHON" benchmarks/span_gpu.py || status=1
"$PYTHON" benchmarks/scan_gpu.py || status=1
exit $status
