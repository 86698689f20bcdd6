#!/usr/bin/env bash
# Train SPAN ×4 on real images for some minutes on one GPU, then score Set5:
#
#   bash scripts/gpu_train.sh 15 HR_FOLDER SET5_FOLDER [KEY=VALUE …]
#
#   HR_FOLDER    images to train on, of any number (DIV2K_train_HR, BSDS500/train …); their LR are
#                made by MATLAB's bicubic, and both are packed once beside the run
#   SET5_FOLDER  with HR/ and LR_bicubic/X4/ (as `restore prepare set5` lays it out)
#
# KEY=VALUE replaces options of train_SPAN_SRx4.yml. The learning rate falls to its end within the
# minutes: the steps that fit are measured first. What a few minutes reach is no paper's figure;
# bicubic has 28.42 dB on Set5 ×4 (Y).
set -euo pipefail
if (($# < 3)); then
    sed -n '2,11p' "$0" >&2
    exit 2
fi
minutes=$1 hr=$(realpath "$2") set5=$(realpath "$3")
shift 3
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH}
work=${WORK:-datasets/gpu_train}
name=${NAME:-gpu_train_SPAN_x4}

if [[ ! -f $work/packed/lq.pack ]]; then
    mkdir -p "$work"
    "$PYTHON" - "$hr" "$work" <<'PY'
"""HR images of RGB cropped to multiples of 4, and their bicubic LR."""
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from restore import images
from restore.ops.resize import imresize

SOURCE, WORK = Path(sys.argv[1]), Path(sys.argv[2])


def reduce(file: Path) -> None:
    image = images.read(file)
    if image.ndim == 2 or min(image.shape[:2]) < 256:
        return
    image = image[: image.shape[0] // 4 * 4, : image.shape[1] // 4 * 4]
    images.write(WORK / f"hr/{file.stem}.png", image)
    images.write(WORK / f"lr/{file.stem}.png", imresize(image, 1 / 4))


for folder in ("hr", "lr"):
    (WORK / folder).mkdir(parents=True, exist_ok=True)
with ProcessPoolExecutor() as pool:
    list(pool.map(reduce, images.list_images(SOURCE), chunksize=8))
PY
    "$PYTHON" -m restore.commands prepare pack --gt "$work/hr" --lq "$work/lr" --out "$work/packed"
fi

options=(
    "datasets.train.dataroot_gt=$work/packed/gt.pack" "datasets.train.dataroot_lq=$work/packed/lq.pack"
    "datasets.train.io_backend={type: pack}" "datasets.train.filename_tmpl='{}'"
    "datasets.val.dataroot_gt=$set5/HR" "datasets.val.dataroot_lq=$set5/LR_bicubic/X4"
    train.precision=bf16 train.ema_decay=0.999 logger.use_tb_logger=false "$@"
)
# how many steps fit: the last 100 of 200
"$PYTHON" train.py -opt options/train_SPAN_SRx4.yml --overwrite --set "name=$name-speed" \
    train.total_iter=200 "train.scheduler=~" val.val_freq=1000 "${options[@]}"
steps=$("$PYTHON" - "experiments/$name-speed/log.jsonl" "$minutes" <<'PY'
import json, sys

rates = [line["it_per_s"] for line in map(json.loads, open(sys.argv[1])) if "it_per_s" in line]
print(max(200, int(0.95 * rates[-1] * 60 * float(sys.argv[2]))))
PY
)
echo "$steps steps fit into $minutes minutes"
"$PYTHON" train.py -opt options/train_SPAN_SRx4.yml --overwrite --set "name=$name" \
    "train.total_iter=$steps" \
    "train.scheduler={type: CosineAnnealingRestartLR, periods: [$steps], eta_min: 1e-7}" \
    "val.val_freq=$((steps / 5 + 1))" "logger.save_checkpoint_freq=$((steps / 5 + 1))" "${options[@]}"
"$PYTHON" test.py -opt options/test_SPAN_SRx4.yml --set "name=$name-test" \
    "path.pretrain_network_g=experiments/$name" \
    "datasets={test_1: {name: Set5, type: PairedImageDataset, dataroot_gt: $set5/HR, dataroot_lq: $set5/LR_bicubic/X4, filename_tmpl: '{}x4'}}"
