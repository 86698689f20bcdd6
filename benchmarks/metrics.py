"""PSNR, SSIM, NIQE and imresize against BasicSR's code, on one core.

  python benchmarks/metrics.py [--baseline BASICSR] [--quick] [--no-record]

`--baseline`: a BasicSR checkout (the folder that holds `basicsr/`); without it a twin of ours with
the same order of calls (`plain_metrics.py`, whose numbers are BasicSR's to the last bit). Before
anything is timed the two sides are compared; they have to agree as the table says.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import scipy.ndimage
import torch
from skimage import data

from restore.metrics.batched import score_batch
from restore.metrics.niqe import NiqeModel, fit, niqe
from restore.metrics.protocols import PROTOCOLS
from restore.metrics.psnr_ssim import psnr, ssim
from restore.metrics.scores import luma_psnr, score
from restore.metrics.similarity import compiled, mean_similarity
from restore.ops.resize import imresize
from restore.reports.tables import text_table

import plain_metrics
from common import command_line, interleaved, ratio, record

BORDER = 4
SIZES = {"1280×720": (720, 1280), "2040×1356": (1356, 2040)}
RESIZES = {
    "2040×1356 ×1/4": ((1356, 2040), 1 / 4),
    "2040×1356 ×1/2": ((1356, 2040), 1 / 2),
    "510×339 ×4": ((339, 510), 4),
    "1280×720 ×1/3": ((720, 1280), 1 / 3),
}


@dataclass(frozen=True)
class Case:
    """One line: two ways to one result, how far they may differ, how much faster ours should be."""

    name: str
    theirs: Callable[[], Any]
    ours: Callable[[], Any]
    tolerance: float
    wanted: float
    repeats: int = 1
    """Runs in a row: where one is short, whoever ran before it has emptied the cache."""


@dataclass(frozen=True)
class Baseline:
    """The other side. Images are BGR, as BasicSR holds them."""

    name: str
    psnr: Callable[[np.ndarray, np.ndarray, bool], float]
    ssim: Callable[[np.ndarray, np.ndarray, bool], float]
    niqe: Callable[[np.ndarray], float]
    imresize: Callable[[np.ndarray, float], np.ndarray]
    model: NiqeModel


def twin() -> Baseline:
    """Our own words for BasicSR's order of calls, and a model fitted to textures at hand."""
    model = fit([data.grass(), data.gravel(), data.brick()])
    return Baseline(
        "twin",
        lambda a, b, y: plain_metrics.psnr(a, b, BORDER, y=y),
        lambda a, b, y: plain_metrics.ssim(a, b, BORDER, y=y),
        lambda a: plain_metrics.niqe(a, model.mean, model.covariance, BORDER),
        plain_metrics.imresize,
        model,
    )


def basicsr(checkout: Path) -> Baseline:
    """BasicSR's own files, without the rest of the package (which wants torchvision)."""
    for name in ("basicsr", "basicsr.utils", "basicsr.metrics"):
        package = types.ModuleType(name)
        package.__path__ = [str(checkout / name.replace(".", "/"))]
        sys.modules[name] = package
    filters = types.ModuleType("scipy.ndimage.filters")  # gone from newer SciPy
    filters.convolve = scipy.ndimage.convolve  # pyright: ignore
    sys.modules["scipy.ndimage.filters"] = filters
    for name in ("color_util", "matlab_functions"):  # where bgr2ycbcr is, by version
        found = getattr(importlib.import_module(f"basicsr.utils.{name}"), "bgr2ycbcr", None)
        if found is not None:
            sys.modules["basicsr.utils"].bgr2ycbcr = found  # pyright: ignore
            break
    pair = importlib.import_module("basicsr.metrics.psnr_ssim")
    blind = importlib.import_module("basicsr.metrics.niqe")
    resize = importlib.import_module("basicsr.utils.matlab_functions").imresize
    return Baseline(
        "BasicSR",
        lambda a, b, y: pair.calculate_psnr(a, b, BORDER, test_y_channel=y),
        lambda a, b, y: pair.calculate_ssim(a, b, BORDER, test_y_channel=y),
        lambda a: blind.calculate_niqe(a, BORDER),
        resize,
        NiqeModel.read(checkout / "basicsr/metrics/niqe_pris_params.npz"),
    )


def photo(size: tuple[int, int], name: str = "astronaut") -> np.ndarray:
    """A photograph enlarged to `size`, RGB uint8."""
    return cv2.resize(getattr(data, name)(), size[::-1], interpolation=cv2.INTER_CUBIC)


def noisy(image: np.ndarray) -> np.ndarray:
    """`image` with Gaussian noise of 8 levels."""
    noise = np.random.default_rng(0).normal(0, 8, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def cases_of(baseline: Baseline, sizes: list[str], resizes: list[str]) -> list[Case]:
    """Every line of the table."""
    cases = []
    for size in sizes:
        target = photo(SIZES[size])
        restored = noisy(target)
        a, b = restored[..., ::-1].copy(), target[..., ::-1].copy()
        cases += _pair_cases(baseline, size, restored, target, a, b)
    for name in resizes:
        size, scale = RESIZES[name]
        image = photo(size).astype(np.float32) / 255
        cases.append(_resize_case(baseline, name, image, scale))
    return cases


def _pair_cases(
    baseline: Baseline,
    size: str,
    restored: np.ndarray,
    target: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
) -> list[Case]:
    inside = slice(BORDER, -BORDER)
    cut, wanted = restored[inside, inside], target[inside, inside]

    return [
        Case(
            f"PSNR RGB {size}",
            lambda: baseline.psnr(a, b, False),
            lambda: psnr(restored, target, border=BORDER),
            1e-9,
            50,
            repeats=20,
        ),
        Case(
            f"PSNR Y {size}",
            lambda: baseline.psnr(a, b, True),
            lambda: luma_psnr(cut, wanted),
            1e-6,
            10,
        ),
        Case(
            f"SSIM RGB {size}",
            lambda: baseline.ssim(a, b, False),
            lambda: ssim(restored, target, border=BORDER),
            1e-6,
            8,
        ),
        Case(
            f"SSIM Y {size}",
            lambda: baseline.ssim(a, b, True),
            lambda: mean_similarity(cut, wanted, 255.0, "valid2d", luma=True),
            1e-6,
            8,
        ),
        Case(
            f"PSNR and SSIM Y {size}",
            lambda: baseline.psnr(a, b, True) + baseline.ssim(a, b, True),
            lambda: sum(score(PROTOCOLS["sr-y"], restored, target, BORDER)),
            2e-6,
            8,
        ),
        Case(
            f"NIQE {size}",
            lambda: baseline.niqe(a),
            lambda: niqe(restored, baseline.model, border=BORDER),
            1e-5,
            5,
        ),
    ]


def _resize_case(baseline: Baseline, name: str, image: np.ndarray, scale: float) -> Case:
    return Case(
        f"imresize {name}",
        lambda: baseline.imresize(image, scale),
        lambda: imresize(image, scale),
        5e-7,
        3,
    )


def assert_batches_agree() -> str:
    """The tensor forms against the array forms, on the GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    target = photo((180, 320))
    restored = noisy(target)
    worst = 0.0
    for name in ("sr-y", "rgb", "gopro-rgb", "dpdd-rgb", "grl-y"):
        pair = [torch.from_numpy(i).to(device).double() / 255 for i in (restored, target)]
        found = score_batch(PROTOCOLS[name], *(i.permute(2, 0, 1)[None] for i in pair), BORDER)
        expected = score(PROTOCOLS[name], restored, target, BORDER)
        worst = max(worst, *(abs(f.item() - e) for f, e in zip(found, expected, strict=True)))
    assert worst < 1e-9, worst
    return f"batched forms on {device} agree to {worst:.1e}"


def difference(case: Case) -> float:
    """How far the two results are apart; more than the tolerance is refused."""
    theirs, ours = case.theirs(), case.ours()
    found = float(np.max(np.abs(np.asarray(theirs, np.float64) - np.asarray(ours, np.float64))))
    assert found <= case.tolerance, f"{case.name}: {found} apart, {case.tolerance} allowed"
    return found


def repeated(run: Callable[[], Any], times: int) -> Callable[[], None]:
    """`run`, several times in a row."""

    def again() -> None:
        for _ in range(times):
            run()

    return again


def measured(case: Case, rounds: int) -> list[str]:
    """One line of the table."""
    apart = difference(case)
    sides = {"theirs": case.theirs, "ours": case.ours}
    times = interleaved(
        {name: repeated(side, case.repeats) for name, side in sides.items()}, rounds
    )
    medians = [f"{1e3 * float(np.median(times[side])) / case.repeats:.2f}" for side in sides]
    faster = ratio(times, "theirs", "ours")
    return [case.name, *medians, f"{faster:.1f} ×", f"{case.wanted:g} ×", f"{apart:.1e}"]


def main() -> None:
    """Measure and record."""
    parser = command_line(__doc__, quick="the smaller size, fewer rounds")
    parser.add_argument("--baseline", type=Path, metavar="BASICSR", help="a checkout of BasicSR")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    baseline = twin() if args.baseline is None else basicsr(args.baseline)
    sizes, resizes = list(SIZES), list(RESIZES)
    if args.quick:
        sizes, resizes = sizes[:1], resizes[-2:]
    lines = [measured(c, 3 if args.quick else 9) for c in cases_of(baseline, sizes, resizes)]
    head = ["", f"{baseline.name}, CPU ms", "ours", "faster", "wanted", "apart"]
    form = "compiled kernels" if compiled() is not None else "no compiler: OpenCV in strips"
    body = f"{text_table(head, lines)}\n\n{form}; {assert_batches_agree()}"
    record(args, f"Metrics against {baseline.name}", body)


if __name__ == "__main__":
    main()
