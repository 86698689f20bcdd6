"""Floor 3. LPIPS and DISTS: distances between the features of a classification network.

Neither torchvision nor the metrics' own packages are imported: the two backbones are written here,
and their weights are files that the user names, as nothing is downloaded at run time. The small
heads come from a file, too, or out of the installed package (`lpips`, `dists-pytorch`).
Sources: Zhang et al., CVPR 2018 (version 0.1, AlexNet); Ding et al., TPAMI 2020 (VGG16).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from restore.errors import BackendError, DataError, WeightsError
from restore.images import as_rgb

ALEXNET = {0: (4, 2), 3: (1, 2), 6: (1, 1), 8: (1, 1), 10: (1, 1)}
"""Convolution's number in torchvision's `features` -> (stride, padding)."""
VGG16 = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Numbers of the 3×3 convolutions of each stage in torchvision's `features`."""
LEAST = {"LPIPS": 35, "DISTS": 16}


class Lpips:
    """LPIPS 0.1 with AlexNet; 0 for equal images, lower is better.

    `backbone`: torchvision's AlexNet weights (`alexnet-owt-*.pth`). `heads`: the package's
    `weights/v0.1/alex.pth`; looked for in the installed package `lpips` when None.
    Raises WeightsError for files that are something else, BackendError where there are no heads.
    """

    def __init__(self, backbone: Path, heads: Path | None = None) -> None:
        file = heads or _packaged("lpips", "weights/v0.1/alex.pth", "--lpips-heads")
        names = [f"lin{n}.model.1.weight" for n in range(5)]
        self._heads = [t.double() for t in _tensors(file, names)]
        self._layers = _layers(backbone, list(ALEXNET))

    @torch.inference_mode()
    def __call__(self, restored: np.ndarray, target: np.ndarray) -> float:
        """The distance of two uint8 or uint16 images of one shape. Raises DataError."""
        pairs = zip(*(self._features(i) for i in _pair("LPIPS", restored, target)), strict=True)
        return sum(
            float(((_normal(a) - _normal(b)).square() * head).sum(dim=1).mean())
            for (a, b), head in zip(pairs, self._heads, strict=True)
        )

    def _features(self, x: Tensor) -> list[Tensor]:
        shift, scale = _columns(-0.030, -0.088, -0.188), _columns(0.458, 0.448, 0.450)
        x, found = (2 * x - 1 - shift) / scale, []
        for number, (stride, padding) in ALEXNET.items():
            x = F.max_pool2d(x, 3, 2) if number in (3, 6) else x
            x = F.conv2d(x, *self._layers[number], stride, padding).relu()
            found.append(x)
        return found


class Dists:
    """DISTS with VGG16; 0 for equal images, lower is better.

    `backbone`: torchvision's VGG16 weights (`vgg16-*.pth`). `heads`: the package's `weights.pt`;
    looked for in the installed package `DISTS_pytorch` when None. Errors as for `Lpips`.
    """

    def __init__(self, backbone: Path, heads: Path | None = None) -> None:
        file = heads or _packaged("DISTS_pytorch", "weights.pt", "--dists-heads")
        self._alpha, self._beta = (t.double() for t in _tensors(file, ["alpha", "beta"]))
        self._layers = _layers(backbone, [n for stage in VGG16 for n in stage])

    @torch.inference_mode()
    def __call__(self, restored: np.ndarray, target: np.ndarray) -> float:
        """The distance of two uint8 or uint16 images of one shape. Raises DataError."""
        a, b = (self._features(i) for i in _pair("DISTS", restored, target))
        texture, structure = [], []
        for x, y in zip(a, b, strict=True):
            mean_x, mean_y = x.mean((2, 3), keepdim=True), y.mean((2, 3), keepdim=True)
            spread = (x - mean_x).square() + (y - mean_y).square()
            covariance = (x * y).mean((2, 3), keepdim=True) - mean_x * mean_y
            texture.append((2 * mean_x * mean_y + 1e-6) / (mean_x**2 + mean_y**2 + 1e-6))
            structure.append((2 * covariance + 1e-6) / (spread.mean((2, 3), keepdim=True) + 1e-6))
        total = self._alpha.sum() + self._beta.sum()
        similar = (self._alpha * torch.cat(texture, 1) + self._beta * torch.cat(structure, 1)).sum()
        return float(1 - similar / total)

    def _features(self, image: Tensor) -> list[Tensor]:
        mean, deviation = _columns(0.485, 0.456, 0.406), _columns(0.229, 0.224, 0.225)
        x, found = (image - mean) / deviation, [image]
        for stage in VGG16:
            x = x if stage is VGG16[0] else _pooled(x)
            for number in stage:
                x = F.conv2d(x, *self._layers[number], 1, 1).relu()
            found.append(x)
        return found


def _pooled(x: Tensor) -> Tensor:
    """Half the size: the root of a Hann-weighted mean of squares."""
    line = torch.tensor([0.25, 0.5, 0.25], dtype=x.dtype)
    window = torch.outer(line, line).expand(x.shape[1], 1, 3, 3)
    return (F.conv2d(x.square(), window, None, 2, 1, groups=x.shape[1]) + 1e-12).sqrt()


def _normal(x: Tensor) -> Tensor:
    """Feature vectors of unit length."""
    return x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)


def _columns(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1)


def _pair(metric: str, restored: np.ndarray, target: np.ndarray) -> list[Tensor]:
    """Both as `(1, 3, H, W)` float64 in [0, 1]."""
    images = [as_rgb(i) for i in (restored, target)]
    if images[0].shape != images[1].shape or min(images[0].shape[:2]) < LEAST[metric]:
        raise DataError.of(
            "DAT06",
            f"images cannot be compared by {metric}",
            "score",
            f"{images[0].shape} and {images[1].shape}",
            f"one shape, with sides of at least {LEAST[metric]}",
            "crop or resize one of them",
        )
    tops = [float(np.iinfo(i.dtype).max) for i in images]
    return [
        torch.from_numpy(i.astype(np.float64) / top).permute(2, 0, 1)[None]
        for i, top in zip(images, tops, strict=True)
    ]


def _layers(file: Path, numbers: list[int]) -> dict[int, tuple[Tensor, Tensor]]:
    """(weight, bias), float64, of the convolutions of a torchvision classifier."""
    names = [f"features.{n}.{part}" for n in numbers for part in ("weight", "bias")]
    values = [t.double() for t in _tensors(file, names)]
    return dict(zip(numbers, zip(values[::2], values[1::2], strict=True), strict=True))


def _tensors(file: Path, names: list[str]) -> list[Tensor]:
    """Tensors of a `.pth` file, read by torch's tensors-only unpickler."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        return [content[name] for name in names]
    except Exception as error:  # whatever torch makes of a file that is something else
        raise WeightsError.of(
            "WGT31",
            "not the weights of this metric",
            str(file),
            f"{type(error).__name__}: {error}".splitlines()[0],
            f"a .pth with {names[0]}",
            "see docs/protocols.md for the files",
        ) from None


def _packaged(package: str, file: str, option: str) -> Path:
    """A file of an installed package, which is not imported (it would want torchvision)."""
    spec = importlib.util.find_spec(package)
    path = Path(spec.origin).parent / file if spec is not None and spec.origin else None
    if path is None or not path.is_file():
        raise BackendError.of(
            "DEV04",
            f"package {package} is not installed",
            "restore score",
            f"no {file}",
            "the metric's heads",
            f"pip install lpips dists-pytorch, or name the file by {option}",
        )
    return path
