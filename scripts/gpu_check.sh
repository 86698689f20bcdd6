#!/usr/bin/env bash
# Every check and figure that needs a GPU, in one call of less than 10 minutes, and one table at the
# end, which also names what could not run:
#
#   bash scripts/gpu_check.sh
#
# Needs torch with CUDA and the packages of both requirements files; installs nothing. Uses the
# venv's Python, or the one in $PYTHON. Figures go to benchmarks/RESULTS.md, what every part said to
# files in $LOGS (default: a temporary folder). Exit codes: 0 all ran and holds, 1 something failed or
# had no time left (LIMIT, seconds for everything), 2 no GPU that works.
set -uo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
LOGS=${LOGS:-$(mktemp -d)}
LIMIT=${LIMIT:-570}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}

if ! "$PYTHON" - <<'PY'; then
import sys

try:
    import pytest  # without which the checks would all fail, one by one
    import torch

    from restore.errors import BackendError
    from restore.world import World
except ModuleNotFoundError as missing:
    sys.exit(
        f"{sys.executable} has no {missing.name}; fix: PYTHON=<a Python with requirements.txt, "
        "requirements-test.txt and a torch with CUDA>"
    )
try:
    device = World.start(num_gpu=1).device
except BackendError as error:
    sys.exit(str(error))
print(f"torch {torch.__version__}, {torch.cuda.get_device_name(device)}")
PY
    echo "gpu_check: nothing has run" >&2
    exit 2
fi
gpus=$("$PYTHON" -c 'import torch; print(torch.cuda.device_count())')
mkdir -p "$LOGS"
rows=() failed=0

# part NAME COMMAND…: run it in what is left of the time, and note how it ended
part() {
    local name=$1 begun=$SECONDS left=$((LIMIT - SECONDS)) code result
    shift
    if ((left < 20)); then
        rows+=("$name|not run: no time left|0")
        failed=1
        return
    fi
    echo "── $name"
    timeout "$left" "$@" 2>&1 | tee "$LOGS/$name.log"
    code=${PIPESTATUS[0]}
    case $code in
        0) result=ok ;;
        124) result="stopped: no time left" failed=1 ;;
        *) result="FAILED ($code)" failed=1 ;;
    esac
    [[ $code == 0 && $(tail -1 "$LOGS/$name.log") =~ ([0-9]+)\ skipped ]] &&
        result="ok, but ${BASH_REMATCH[1]} skipped"
    rows+=("$name|$result|$((SECONDS - begun))")
}
absent() { rows+=("$1|not run: $2|0"); }

check=("$PYTHON" -m pytest -q -p no:cacheprovider)
part scan-checks "${check[@]}" tests/test_gpu_scan.py tests/ops/test_selective_scan.py
part checks "${check[@]}" tests/test_gpu.py -k "not ranks"
part metrics "${check[@]}" tests/metrics/test_batched.py
if ((gpus > 1)); then
    part ranks "${check[@]}" tests/test_gpu.py -k ranks
else
    absent ranks "needs 2 GPUs, here is 1"
fi
part span "$PYTHON" benchmarks/span_gpu.py
part scan "$PYTHON" benchmarks/scan.py --gpu --quick
part scan-kernels "$PYTHON" benchmarks/scan_gpu.py
part train "$PYTHON" benchmarks/train.py --quick
part checkpoint "$PYTHON" benchmarks/checkpoint.py --quick

printf '\nlogs: %s\n%-14s %-34s %s\n' "$LOGS" part result seconds
for row in "${rows[@]}"; do
    IFS='|' read -r name result seconds <<<"$row"
    printf '%-14s %-34s %s\n' "$name" "$result" "$seconds"
done
exit $failed
