"""Floor 3. NIQE: how far an image's statistics are from those of pristine ones; no target needed.

Mittal, Soundararajan, Bovik, "Making a completely blind image quality analyzer" (2013), as BasicSR
and the authors' MATLAB release compute it: rounded luma, 96×96 blocks at two scales, per block the
fits of an asymmetric generalised Gaussian to normalised pixels and to products of neighbours.

The pristine model is the user's: a `.npz` with `mu_pris_param` and `cov_pris_param`, such as
BasicSR's `niqe_pris_params.npz` (made from the authors' release, not redistributed here), or one
fitted here to own pictures. Values under different models cannot be compared.

The reference code works in float32, and the number hangs on it: in float64 it moves by up to 5e-4.
So the same steps are float32 here; the two agree to 1e-5.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from ctypes import c_long, c_void_p
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from scipy.special import gamma

from restore.errors import DataError, WeightsError
from restore.metrics.similarity import compiled

BLOCK = 96
FEATURES = 36
TURNS = ((0, 0), (0, 1), (1, 0), (1, 1), (1, -1))
SHARP = 0.75
"""Blocks for a fit are at least this sharp, compared with the sharpest of the image."""

MODEL_BYTES = 1 << 20
"""The largest array of a model has a hundredth of it."""

HALVING = torch.tensor([-3.0, -9.0, 29.0, 111.0, 111.0, 29.0, -9.0, -3.0]) / 256
"""Weights of the antialiased Keys cubic at scale 1/2."""


@dataclass(frozen=True, eq=False)
class NiqeModel:
    """The Gaussian that pristine blocks follow."""

    mean: np.ndarray
    """`(36,)`"""
    covariance: np.ndarray
    """`(36, 36)`"""

    @classmethod
    def read(cls, path: Path) -> NiqeModel:
        """A model file. Raises WeightsError."""
        try:
            with zipfile.ZipFile(path) as archive:
                largest = max(entry.file_size for entry in archive.infolist())
            if largest > MODEL_BYTES:
                raise ValueError(f"{largest} bytes in one array")
            with np.load(path, allow_pickle=False) as file:
                mean = np.asarray(file["mu_pris_param"], dtype=np.float64).reshape(FEATURES)
                covariance = np.asarray(file["cov_pris_param"], dtype=np.float64)
            covariance = covariance.reshape(FEATURES, FEATURES)
        except Exception as error:  # whatever numpy makes of a file that is something else
            raise WeightsError.of(
                "WGT30",
                "not a NIQE model",
                str(path),
                f"{type(error).__name__}: {error}",
                "an .npz with mu_pris_param (36) and cov_pris_param (36×36)",
                "name BasicSR's niqe_pris_params.npz, or make one with restore niqe --fit",
            ) from None
        return cls(mean, covariance)

    def write(self, path: Path) -> None:
        """Keep the model in a file that `read`, and BasicSR, can take."""
        taps = _taps()
        with path.open("wb") as file:
            np.savez(
                file,
                mu_pris_param=self.mean[None],
                cov_pris_param=self.covariance,
                gaussian_window=np.outer(taps, taps),
            )


def niqe(image: np.ndarray, model: NiqeModel, *, border: int = 0) -> float:
    """NIQE of a uint8 or uint16 image, `(H, W, 3)` RGB or `(H, W)`; lower is better.

    Raises DataError for an image with fewer than two blocks that can be fitted.
    """
    features, _ = _features(_plane(image, border))
    whole = features[~np.isnan(features).any(axis=1)]
    if len(whole) < 2:
        raise _too_small(image)
    distance = model.mean - np.nanmean(features, axis=0)
    spread = (model.covariance + np.cov(whole, rowvar=False)) / 2
    return float(np.sqrt(distance @ np.linalg.pinv(spread) @ distance))


def fit(images: Iterable[np.ndarray]) -> NiqeModel:
    """The model of pristine `images`, from the sharp blocks of each.

    Raises DataError for an image without a block, or where there are too few blocks in all.
    """
    kept = []
    for image in images:
        features, sharpness = _features(_plane(image, 0))
        sharp = features[sharpness > SHARP * sharpness.max()]
        kept.append(sharp[~np.isnan(sharp).any(axis=1)])
    blocks = np.concatenate(kept) if kept else np.empty((0, FEATURES))
    if len(blocks) <= FEATURES:
        raise DataError.of(
            "DAT31",
            "too few sharp blocks for a NIQE model",
            "niqe",
            f"{len(blocks)} blocks of {len(kept)} images",
            f"more than {FEATURES}; good models have thousands",
            "add pictures",
        )
    return NiqeModel(blocks.mean(axis=0), np.cov(blocks, rowvar=False))


def _plane(image: np.ndarray, border: int) -> np.ndarray:
    """The rounded luma that is looked at, float32, cut to whole blocks."""
    single = np.float32
    unit = image.astype(single) / single(np.iinfo(image.dtype).max)
    if image.ndim == 3:  # float32 decides on which side of a half a value lies
        y = unit @ np.array([65.481, 128.553, 24.966]) + 16
        unit = (y / 255).astype(single)
    y = unit * single(255)
    y = np.rint(y[border : len(y) - border, border : y.shape[1] - border])
    height, width = (side - side % BLOCK for side in y.shape)
    if not height or not width:
        raise _too_small(image)
    return np.ascontiguousarray(y[:height, :width])


def _too_small(image: np.ndarray) -> DataError:
    return DataError.of(
        "DAT12",
        "image too small or too even for NIQE",
        "niqe",
        f"{image.shape[1]}×{image.shape[0]}",
        f"at least two blocks of {BLOCK}×{BLOCK} with some texture",
        "use a larger image or a smaller border",
    )


def _features(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(features `(blocks, 36)`, NaN where a fit has no values; mean deviation of each block)."""
    normal, deviation = _normalised(y)
    blocks = deviation.reshape(len(y) // BLOCK, BLOCK, -1, BLOCK)
    sharpness = blocks.mean(axis=(1, 3), dtype=np.float64).ravel()
    halved, _ = _normalised(_halved(y / np.float32(255)) * np.float32(255))
    parts = [_fitted(plane, side) for plane, side in ((normal, BLOCK), (halved, BLOCK // 2))]
    return np.concatenate(parts, axis=1), sharpness


def _halved(y: np.ndarray) -> np.ndarray:
    """MATLAB's bicubic halves of a float32 image of even sides, mirrored at the border.

    Where the image is flat, the rest of the number hangs on the last bits that are left here, so
    every row and then every column is the product that the reference code asks the library for.
    """
    rows = torch.from_numpy(y)
    rows = torch.cat([rows[:3].flip(0), rows, rows[-3:].flip(0)])
    half = torch.empty(len(y) // 2, y.shape[1])
    for number, row in enumerate(half):
        torch.mv(rows[2 * number : 2 * number + 8].T, HALVING, out=row)
    columns = torch.cat([half[:, :3].flip(1), half, half[:, -3:].flip(1)], dim=1)
    quarter = torch.empty(y.shape[1] // 2, len(half))
    for number, row in enumerate(quarter):
        torch.mv(columns[:, 2 * number : 2 * number + 8], HALVING, out=row)
    return quarter.T.contiguous().numpy()


@cache
def _taps() -> np.ndarray:
    return cv2.getGaussianKernel(7, 7 / 6, cv2.CV_64F)[:, 0]


def _normalised(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(mean-subtracted, contrast-normalised pixels; local deviation), float32."""

    def around(values: np.ndarray) -> np.ndarray:
        means = cv2.sepFilter2D(
            values, cv2.CV_64F, _taps(), _taps(), borderType=cv2.BORDER_REPLICATE
        )
        return means.astype(np.float32)

    mean = around(y)
    deviation = np.sqrt(np.abs(around(y * y) - mean * mean))
    return (y - mean) / (deviation + np.float32(1)), deviation


def block_sums(image: np.ndarray, side: int) -> np.ndarray:
    """Per block of side × side float32 pixels, and per map, six sums; `(blocks, 5, 6)` float64.

    Maps: the block, and its products with itself turned around by (0, 1), (1, 0), (1, 1), (1, -1).
    Sums: how many are negative, positive; squares of the negative, the positive; |v|; v².
    """
    down, across = image.shape[0] // side, image.shape[1] // side
    library = compiled()
    sums = np.empty((down * across, 5, 6))
    if library is not None:
        image = np.ascontiguousarray(image)
        sizes = map(c_long, (image.shape[1], down, across, side, side))
        library.aggd_sums(c_void_p(image.ctypes.data), *sizes, c_void_p(sums.ctypes.data))
        return sums
    blocks = _blocks(image, side)
    for number in range(len(TURNS)):
        values = _turned(blocks, number)
        squares = values * values
        for place, part in enumerate(
            (
                values < 0,
                values > 0,
                np.where(values < 0, squares, 0),
                np.where(values > 0, squares, 0),
                np.abs(values),
                squares,
            )
        ):
            sums[:, number, place] = part.sum(axis=(1, 2), dtype=np.float64)
    return sums


def _blocks(image: np.ndarray, side: int) -> np.ndarray:
    """`(blocks, side, side)` of an image of whole blocks."""
    parts = image.reshape(len(image) // side, side, -1, side)
    return parts.swapaxes(1, 2).reshape(-1, side, side)


def _turned(blocks: np.ndarray, number: int) -> np.ndarray:
    """Map `number` of blocks: themselves, or times themselves turned around."""
    turn = TURNS[number]
    return blocks * np.roll(blocks, turn, axis=(-2, -1)) if any(turn) else blocks


@cache
def _shapes() -> tuple[np.ndarray, np.ndarray]:
    """(shape parameters α, the ratio E|v|² / E v² that each stands for, which grows with α)."""
    shapes = np.arange(0.2, 10.001, 0.001)
    inverse = 1 / shapes
    return shapes, gamma(2 * inverse) ** 2 / (gamma(inverse) * gamma(3 * inverse))


def _fitted(image: np.ndarray, side: int) -> np.ndarray:
    """`(blocks, 18)`: of the pixels α and the mean width; of four products α, mean, both widths."""
    shape, left, right = _aggd(block_sums(image, side), _blocks(image, side))
    mean = (right - left) * (gamma(2 / shape) / gamma(1 / shape))
    products = np.stack([shape, mean, left, right], axis=2)[:, 1:].reshape(len(shape), 16)
    own = np.stack([shape[:, 0], (left[:, 0] + right[:, 0]) / 2], axis=1)
    return np.concatenate([own, products], axis=1)


def _aggd(sums: np.ndarray, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(α, left width, right width) of an asymmetric generalised Gaussian, each `(blocks, 5)`.

    A block without negative or without positive values has NaN widths and the least α.
    """
    shapes, ratios = _shapes()
    with np.errstate(divide="ignore", invalid="ignore"):
        left, right = (sums[..., n] / sums[..., n - 2] for n in (2, 3))
        mean, square = (sums[..., n] / blocks[0].size for n in (4, 5))
        ratio, left, right = _moments(left, right, mean, square)
        above = np.clip(np.searchsorted(ratios, ratio), 1, len(ratios) - 1)
        middle = (ratios[above - 1] + ratios[above]) / 2
        near = np.argwhere(np.abs(ratio - middle) < 1e-6 * ratio)
    below = ratio <= middle
    for block, number in near:  # so near that the order of summing in float32 decides
        values = _turned(blocks[block], number)
        parts = (values[values < 0] ** 2, values[values > 0] ** 2, np.abs(values), values**2)
        exact, _, _ = _moments(*(part.mean() for part in parts))
        below[block, number] = exact <= middle[block, number]
    shape = shapes[np.where(np.isnan(ratio), 0, above - below)]
    width = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * width, right * width


def _moments(left: Any, right: Any, mean: Any, square: Any) -> tuple[Any, Any, Any]:
    """(the ratio that tells α, left deviation, right deviation), float32, from four means."""
    left, right, mean, square = (np.asarray(m, np.float32) for m in (left, right, mean, square))
    left, right = np.sqrt(left), np.sqrt(right)
    skew = left / right
    ratio = mean**2 / square * (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    return ratio, left, right
