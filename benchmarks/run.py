"""A test run but for the network: decode, convert, score, save, against BasicSR's order of work.

  python benchmarks/run.py [--baseline BASICSR] [--quick] [--no-record]

Host work: CPU time per image (×4, PNG in and out) on one thread. The network is a stand-in that
knows its answers, MATLAB's bicubic, so that what is saved is like a restored photograph. The PNG to
read come from Pillow, whose filters and level are those of the field's sets. The other side is
BasicSR's order, written plainly below, or with --baseline the metrics of a BasicSR checkout. Scores
and saved pictures are asserted equal first. Then the wall time of a run with SPAN against the time
its network takes.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from metrics import BORDER, basicsr
from photos import SCALE, write_photos
from PIL import Image
from torch import Tensor, nn

from restore import images
from restore.archs import build_network, fuse
from restore.archs.architecture import SizeRule
from restore.data.options import PairedImageDataset
from restore.data.source import Cached, Source
from restore.data.sources import open_source
from restore.evaluation.evaluator import Evaluator, Provenance, Seen
from restore.evaluation.predictor import Predictor
from restore.metrics.protocols import PROTOCOLS
from restore.ops.resize import imresize
from restore.world import World

from common import command_line, interleaved, ratio, record, table

SIZES = {"1280 × 720": (720, 1280), "2040 × 1356": (1356, 2040)}
COUNT = 4
BARS = {"host": 5.0, "wall": 1.15}
Scores = list[tuple[float, float]]


class Recall(nn.Module):
    """Knows the answers: what is left of a run is the host's work."""

    def __init__(self, lq: list[Path]) -> None:
        super().__init__()
        self.known: dict[bytes, Tensor] = {}
        for file in lq:
            image = images.to_float(images.read(file))
            large = imresize(image.transpose(1, 2, 0), SCALE).transpose(2, 0, 1)
            answer = np.ascontiguousarray(large.clip(0, 1), np.float32)
            self.known[_signature(torch.from_numpy(image))] = torch.from_numpy(answer)[None]

    def forward(self, x: Tensor) -> Tensor:
        """The answer; to what it was not told of (the corner that memory is measured on) itself."""
        found = self.known.get(_signature(x[0]))
        return (
            x.repeat_interleave(SCALE, -1).repeat_interleave(SCALE, -2) if found is None else found
        )


def _signature(image: Tensor) -> bytes:
    return image[:, 0].numpy().tobytes()


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


def calculate_psnr(a: np.ndarray, b: np.ndarray, test_y_channel: bool) -> float:
    """PSNR-Y."""
    assert test_y_channel
    a, b = (luma(_inside(x)).astype(np.float64) for x in (a, b))
    return 10 * np.log10(255.0**2 / np.mean((a - b) ** 2))


def calculate_ssim(a: np.ndarray, b: np.ndarray, test_y_channel: bool) -> float:
    """SSIM-Y, by full two-dimensional filters cut to the valid region."""
    assert test_y_channel
    a, b = (luma(_inside(x)).astype(np.float64) for x in (a, b))
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


def _inside(image: np.ndarray) -> np.ndarray:
    return image[BORDER:-BORDER, BORDER:-BORDER]


class Plain:
    """The functions above, or a checkout's."""

    def __init__(self, checkout: Path | None) -> None:
        self.psnr: Callable[[np.ndarray, np.ndarray, bool], float] = calculate_psnr
        self.ssim: Callable[[np.ndarray, np.ndarray, bool], float] = calculate_ssim
        self.name = "BasicSR's order"
        if checkout is not None:
            found = basicsr(checkout)
            self.psnr, self.ssim, self.name = found.psnr, found.ssim, "BasicSR's order and metrics"

    @torch.no_grad()
    def run(self, lq: list[Path], gt: list[Path], network: nn.Module, out: Path) -> Scores:
        """One pass over the set, image by image, all on one thread."""
        scores = []
        for small, large in zip(lq, gt, strict=True):
            source, target = img2tensor(imread(small)), img2tensor(imread(large))
            restored = tensor2img(network(source.unsqueeze(0)))
            truth = tensor2img(target.unsqueeze(0))
            cv2.imwrite(str(out / small.name), restored)
            scores.append((self.psnr(restored, truth, True), self.ssim(restored, truth, True)))
        return scores


# Ours ---------------------------------------------------------------------------------------------


def evaluator_of(source: Source) -> Evaluator:
    """Its first pass scores the bicubic baseline too, which BasicSR has not; later ones do not."""
    return Evaluator("set", source, [(PROTOCOLS["sr-y"], BORDER)], World())


def ours(evaluator: Evaluator, network: nn.Module, out: Path) -> tuple[Scores, float]:
    """The evaluator's scores with every image saved, and the seconds in the network."""

    def save(index: int, seen: Seen) -> None:
        images.write(out / f"{seen.pair.name}.png", seen.restored)

    rows = evaluator.run(Predictor(network, SCALE, SizeRule()), Provenance("", "", ""), save)
    return [(row.psnr, row.ssim) for row in rows], sum(row.seconds for row in rows)


def write_set(folder: Path, photos: list[Path], size: tuple[int, int]) -> list[list[Path]]:
    """The middle of photographs as GT, and their LR by bicubic: (lq, gt) files."""
    files: list[list[Path]] = [[], []]
    for photo in photos:
        image = images.read(photo)
        top, left = ((full - part) // 2 for full, part in zip(image.shape[:2], size, strict=True))
        gt = image[top : top + size[0], left : left + size[1]]
        for kind, picture, found in zip(
            ("lq", "gt"), (imresize(gt, 1 / SCALE), gt), files, strict=True
        ):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            found.append(folder / kind / photo.name)
            Image.fromarray(picture).save(found[-1])
    return files


def host_work(folder: Path, name: str, photos: list[Path], plain: Plain, rounds: int) -> str:
    """CPU time of whole passes, the network aside."""
    lq, gt = write_set(folder, photos, SIZES[name])
    read = evaluator_of(source_of(folder))
    kept = evaluator_of(Cached(read.source, 1 << 30))
    network = Recall(lq)
    outs = folder / "theirs", folder / "ours"
    for out in outs:
        out.mkdir()
    theirs, (own, _) = plain.run(lq, gt, network, outs[0]), ours(read, network, outs[1])
    ours(kept, network, outs[1])
    worst = np.abs(np.subtract(theirs, own)).max()
    assert worst < 1e-4, worst
    for file in lq:
        a, b = (cv2.imread(str(out / file.name)) for out in outs)
        assert np.array_equal(a, b), file
    times = interleaved(
        {
            plain.name: lambda: plain.run(lq, gt, network, outs[0]),
            "ours": lambda: ours(read, network, outs[1]),
            "ours, decoded pairs kept": lambda: ours(kept, network, outs[1]),
        },
        rounds,
    )
    per_image = {name: [t / COUNT for t in values] for name, values in times.items()}
    found = ratio(times, plain.name, "ours")
    holds = "holds" if found >= BARS["host"] else "MISSED"
    a, b = (
        sum(f.stat().st_size for f in out.iterdir()) / COUNT / np.prod(SIZES[name]) for out in outs
    )
    return (
        f"host work for each image of {name}, PNG in and out; scores agree to {worst:.1e}, "
        f"pictures are equal;\nsaved with {a:.2f} (theirs) and {b:.2f} (ours) bytes a pixel\n"
        f"{table(per_image, plain.name)}\nbar ≥ {BARS['host']} × {holds}\n"
    )


def source_of(folder: Path) -> Source:
    """The set in a folder, as a test reads it."""
    options = PairedImageDataset(
        type="PairedImageDataset", dataroot_gt=str(folder / "gt"), dataroot_lq=str(folder / "lq")
    )
    return open_source(options, SCALE, channels=3, training=False)


def wall_time(folder: Path, rounds: int) -> str:
    """Of a run with SPAN, over that of its network."""
    evaluator = evaluator_of(source_of(folder))
    span = fuse(build_network({"type": "SPAN", "feature_channels": 48, "upscale": SCALE}))
    walls = []
    ours(evaluator, Recall(sorted((folder / "lq").iterdir())), folder / "ours")
    for _ in range(rounds):
        start = time.perf_counter()
        _, network_seconds = ours(evaluator, span, folder / "ours")
        walls.append((time.perf_counter() - start) / network_seconds)
    wall = float(np.median(walls))
    return (
        f"wall time of a run with SPAN 48ch over its network's, {next(iter(SIZES))}: {wall:.2f} × "
        f"(bar ≤ {BARS['wall']} where a core is spare: "
        f"{'holds' if wall <= BARS['wall'] else 'MISSED'})"
    )


def main() -> None:
    """Measure and record."""
    parser = command_line(__doc__, quick="3 rounds")
    parser.add_argument("--baseline", type=Path, metavar="BASICSR", help="a checkout of BasicSR")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    plain, rounds = Plain(args.baseline), 3 if args.quick else 7
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        photos = images.list_images(write_photos(folder / "photos", COUNT)[0])
        parts = [host_work(folder / name, name, photos, plain, rounds) for name in SIZES]
        parts.append(wall_time(folder / next(iter(SIZES)), rounds))
    body = "\n".join(parts)
    record(args, "A test run but for its network", body)


if __name__ == "__main__":
    main()
