"""The README's picture: one region of a demo image as LQ, bicubic, restored and GT, side by side.

python scripts/demo_picture.py docs/demo.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from restore import images

VIEWS = Path("experiments/test_SPAN_demo/results/report/images/01")
STEM = "00000"  # chelsea, CC0
X, Y, WIDTH, HEIGHT, ZOOM, GAP, BAND = 96, 66, 96, 96, 3, 8, 26


def panel(name: str, label: str) -> np.ndarray:
    """One labelled crop, enlarged without smoothing."""
    image = images.read(VIEWS / f"{STEM}_{name}.png")
    factor = 2 if name == "lq" else 1
    box = [side // factor for side in (Y, X, HEIGHT, WIDTH)]
    crop = image[box[0] : box[0] + box[2], box[1] : box[1] + box[3]]
    crop = crop.repeat(ZOOM * factor, axis=0).repeat(ZOOM * factor, axis=1)
    band = np.full((BAND, crop.shape[1], 3), 255, np.uint8)
    cv2.putText(band, label, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (40, 40, 40), 1, cv2.LINE_AA)
    return np.concatenate([crop, band])


def main(target: str) -> None:
    """Write the picture to `target`."""
    labels = {"lq": "LQ", "baseline": "bicubic", "restored": "SPAN, demo", "gt": "GT"}
    panels = [panel(name, label) for name, label in labels.items()]
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    row = [part for p in panels for part in (p, gap)][:-1]
    images.write(target, np.concatenate(row, axis=1))


if __name__ == "__main__":
    main(sys.argv[1])
