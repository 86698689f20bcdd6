"""A test run but for the network: decode, convert, score, save, against BasicSR's order of work.

  python benchmarks/run.py [--baseline FOLDER] [--quick] [--no-record]

Host work: CPU time per image of 1280 × 720 (×4, PNG in and out) on one thread, with a network that
costs next to nothing in its place. The other side is BasicSR's order, written plainly below, or
with --baseline the functions of a BasicSR checkout. Scores are asserted equal first. Then the wall
time of a run with SPAN against the time its network takes.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from restore import images
from restore.archs import build_network, fuse
from restore.archs.architecture import SizeRule
from restore.catalog import locate
from restore.data.options import PairedImageDataset
from restore.data.source import Cached, Source
from restore.data.sources import open_source
from restore.evaluation.evaluator import Evaluator, Provenance, Seen
from restore.evaluation.predictor import Predictor
from restore.metrics.protocols import PROTOCOLS
from restore.ops.resize import imresize
from restore.world import World

from common import interleaved, ratio, record, table

SCALE, HEIGHT, WIDTH, COUNT = 4, 720, 1280, 4
BARS = {"host": 5.0, "wall": 1.15}
Scores = list[tuple[float, float]]


class Enlarge(nn.Module):
    """Repeats pixels: what is left of a run is the host's work."""

    def forward(self, x: Tensor) -> Tensor:
        return x.repeat_interleave(SCALE, -1).repeat_interleave(SCALE, -2)


# BasicSR's order, plainly -------------------------------------------------------------------------


def imread(file: Path) -> np.ndarray:
    """BGR float32 in [0, 1]."""
    return cv2.imread(str(file), cv2.IMREAD_COLOR).astype(np.float32) / 255.0


def img2tensor(image: np.ndarray) -> Tensor:
    """BGR HWC -> RGB CHW."""
    return torch.from_numpy(cv2.cvtColor(image, cv2.COLOR_BGR2RGB).transpose(2, 0, 1)).float()


def tensor2img(tensor: Tensor) -> np.ndarray:
    """(1, 3, h, w) RGB -> uint8 HWC BGR."""
    values = tensor.squeeze(0).float().detach().cpu().clamp_(0, 1)
    image = cv2.cvtColor(values.numpy().transpose(1, 2, 0), cv2.COLOR_RGB2BGR)
    return (image * 255.0).round().astype(np.uint8)


def luma(image: np.ndarray) -> np.ndarray:
    """Y of uint8 BGR, on 0..255, one float channel."""
    return np.dot(image.astype(np.float32) / 255.0, [24.966, 128.553, 65.481]) + 16.0


def calculate_psnr(a: np.ndarray, b: np.ndarray, border: int) -> float:
    """PSNR-Y."""
    a, b = (luma(x[border:-border, border:-border]).astype(np.float64) for x in (a, b))
    return 10 * np.log10(255.0**2 / np.mean((a - b) ** 2))


def calculate_ssim(a: np.ndarray, b: np.ndarray, border: int) -> float:
    """SSIM-Y, by full two-dimensional filters cut to the valid region."""
    a, b = (luma(x[border:-border, border:-border]).astype(np.float64) for x in (a, b))
    kernel = cv2.getGaussianKernel(11, 1.5)
    window = np.outer(kernel, kernel.transpose())

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.filter2D(x, -1, window)[5:-5, 5:-5]

    mu1, mu2 = mean(a), mean(b)
    sigma1, sigma2 = mean(a**2) - mu1**2, mean(b**2) - mu2**2
    sigma12 = mean(a * b) - mu1 * mu2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = ((2 * mu1 * mu2 + c1) * (2 * sigma12 + c2)) / (
        (mu1**2 + mu2**2 + c1) * (sigma1 + sigma2 + c2)
    )
    return float(found.mean())


class Plain:
    """The functions above, or a checkout's."""

    def __init__(self, checkout: str | None) -> None:
        self.psnr: Callable[..., float] = calculate_psnr
        self.ssim: Callable[..., float] = calculate_ssim
        self.name = "BasicSR's order"
        if checkout is not None:
            sys.path.insert(0, checkout)
            metrics: Any = locate("basicsr.metrics.psnr_ssim:calculate_psnr")
            similar: Any = locate("basicsr.metrics.psnr_ssim:calculate_ssim")
            self.psnr = lambda a, b, border: metrics(a, b, border, test_y_channel=True)
            self.ssim = lambda a, b, border: similar(a, b, border, test_y_channel=True)
            self.name = "BasicSR's order and metrics"

    @torch.no_grad()
    def run(self, lq: list[Path], gt: list[Path], network: nn.Module, out: Path) -> Scores:
        """One pass over the set, image by image, all on one thread."""
        scores = []
        for small, large in zip(lq, gt, strict=True):
            source, target = img2tensor(imread(small)), img2tensor(imread(large))
            restored = tensor2img(network(source.unsqueeze(0)))
            truth = tensor2img(target.unsqueeze(0))
            cv2.imwrite(str(out / small.name), restored)
            pair = restored, truth, SCALE
            scores.append((self.psnr(*pair), self.ssim(*pair)))
        return scores


# Ours ---------------------------------------------------------------------------------------------


def ours(source: Source, network: nn.Module, out: Path) -> tuple[Scores, float]:
    """The evaluator's scores with every image saved, and the seconds in the network."""
    evaluator = Evaluator("set", source, [(PROTOCOLS["sr-y"], SCALE)], SCALE, World())
    evaluator._baselines.update({k: (0.0, 0.0) for k in range(len(source))})  # BasicSR has none

    def save(index: int, seen: Seen) -> None:
        images.write(out / f"{seen.pair.name}.png", seen.restored)

    rows = evaluator.run(Predictor(network, SCALE, SizeRule()), Provenance("", "", ""), save)
    return [(row.psnr, row.ssim) for row in rows], sum(row.seconds for row in rows)


def write_set(folder: Path) -> tuple[list[Path], list[Path]]:
    """Smooth pictures with a little noise, and their LR by bicubic: (lq, gt) files."""
    lq, gt = [], []
    for number in range(COUNT):
        rng = np.random.default_rng(number)
        smooth = cv2.resize(rng.random((45, 80, 3)) * 255, (WIDTH, HEIGHT))
        image = np.clip(smooth + rng.normal(0, 2, smooth.shape), 0, 255).astype(np.uint8)
        for kind, files, picture in (
            ("gt", gt, image),
            ("lq", lq, imresize(image, 1 / SCALE)),
        ):
            (folder / kind).mkdir(exist_ok=True)
            files.append(folder / kind / f"{number}.png")
            images.write(files[-1], picture)
    return lq, gt


def host_work(folder: Path, plain: Plain, rounds: int) -> str:
    """CPU time of whole passes, the network aside."""
    lq, gt = write_set(folder)
    out = folder / "out"
    out.mkdir()
    options = PairedImageDataset(
        type="PairedImageDataset", dataroot_gt=str(folder / "gt"), dataroot_lq=str(folder / "lq")
    )
    source = open_source(options, SCALE, channels=3, training=False)
    kept = Cached(source, 1 << 30)
    network = Enlarge()
    theirs, (own, _) = plain.run(lq, gt, network, out), ours(source, network, out)
    worst = np.abs(np.subtract(theirs, own)).max()
    assert worst < 1e-4, worst
    times = interleaved(
        {
            plain.name: lambda: plain.run(lq, gt, network, out),
            "ours": lambda: ours(source, network, out),
            "ours, decoded pairs kept": lambda: ours(kept, network, out),
        },
        rounds,
    )
    per_image = {name: [t / COUNT for t in values] for name, values in times.items()}
    found = ratio(times, plain.name, "ours")
    holds = "holds" if found >= BARS["host"] else "MISSED"
    walls = []
    span = fuse(build_network({"type": "SPAN", "feature_channels": 48, "upscale": SCALE}))
    for _ in range(rounds):
        start = time.perf_counter()
        _, network_seconds = ours(source, span, out)
        walls.append((time.perf_counter() - start) / network_seconds)
    wall = float(np.median(walls))
    return (
        f"host work for each image of {WIDTH} × {HEIGHT}, PNG in and out; scores agree to "
        f"{worst:.1e}\n{table(per_image, plain.name)}\nbar ≥ {BARS['host']} × {holds}\n\n"
        f"wall time of a run with SPAN 48ch over its network's: {wall:.2f} × "
        f"(bar ≤ {BARS['wall']} where a core is spare: "
        f"{'holds' if wall <= BARS['wall'] else 'MISSED'})"
    )


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--baseline", metavar="FOLDER", help="a checkout of BasicSR")
    parser.add_argument("--quick", action="store_true", help="3 rounds")
    parser.add_argument("--no-record", action="store_true", help="print only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        body = host_work(Path(folder), Plain(args.baseline), 3 if args.quick else 7)
    if args.no_record:
        print(body)
        return
    record("A test run but for its network", "python benchmarks/run.py", body)


if __name__ == "__main__":
    main()
