"""Floor 3. Images that two parts of a set share: the same pixels, or the same picture stored anew
(compressed, resized, cut by a few pixels).

A picture is told by its luma at 16 × 16, which finds two that may be one, and at 64 × 64, which
tells a copy from another view of the same scene; each time they must correlate. A thumbnail of a
nearly plain image is noise, and is compared by its pixels only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from restore.data.prepare.records import Look

SIDE, FINE_SIDE = 16, 64
# Copies of 60 photographs as JPEG 40, half as large, darker, or 4 pixels cut off each side have at
# least 0.97 and 0.90; no two of 135 different photographs have more than 0.80 and 0.72.
ALIKE, FINE_ALIKE = 0.95, 0.85
PLAIN = 2.0  # standard deviation, in levels of 255, below which a thumbnail says nothing
ROWS = 4096  # thumbnails compared at a time: 4096 × 9000 correlations are 150 MB


def thumbnail(image: np.ndarray) -> bytes:
    """The luma of uint8 or uint16 (H, W, 3) or (H, W) at 16 × 16, as uint8 of 256 bytes."""
    small = _luma(image, SIDE)
    return (small if small.dtype == np.uint8 else (small // 257).astype(np.uint8)).tobytes()


def same_picture(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two images are one picture, looked at more finely."""
    rows = [_luma(image, FINE_SIDE).ravel() for image in (one, other)]
    return float(np.corrcoef(rows)[0, 1]) >= FINE_ALIKE


def _luma(image: np.ndarray, side: int) -> np.ndarray:
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(gray, (side, side), interpolation=cv2.INTER_AREA))


def shared(train: Mapping[str, Look], test: Mapping[str, Look]) -> list[tuple[str, str, bool]]:
    """(path in train, path in test, whether the pixels are equal) of every image of both.

    Where they are not equal, `same_picture` has still to be asked.
    """
    by_digest: dict[bytes, str] = {}
    for path, look in train.items():
        by_digest.setdefault(look.digest, path)
    found = {p: (by_digest[k.digest], True) for p, k in test.items() if k.digest in by_digest}
    rest = [path for path in test if path not in found]
    for path, other in _alike(list(train), train, rest, test):
        found.setdefault(path, (other, False))
    return [(found[path][0], path, found[path][1]) for path in test if path in found]


def _alike(
    names: list[str], looks: Mapping[str, Look], wanted: list[str], of: Mapping[str, Look]
) -> list[tuple[str, str]]:
    """(wanted, the most alike of `names`) where they are alike."""
    if not names or not wanted:
        return []
    probes = _normal([of[path] for path in wanted])
    best = np.full(len(wanted), -1.0, np.float32)
    where = np.zeros(len(wanted), np.int64)
    for first in range(0, len(names), ROWS):
        block = _normal([looks[path] for path in names[first : first + ROWS]])
        likeness = block @ probes.T
        row = likeness.argmax(axis=0)
        top = likeness[row, np.arange(len(wanted))]
        where[top > best] = first + row[top > best]
        best = np.maximum(best, top)
    return [(wanted[k], names[where[k]]) for k in range(len(wanted)) if best[k] >= ALIKE]


def _normal(looks: Sequence[Look]) -> np.ndarray:
    """Thumbnails as unit vectors without mean, float32 (n, 256); zero for plain ones."""
    held = np.frombuffer(b"".join(look.thumbnail for look in looks), np.uint8)
    rows = held.reshape(len(looks), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    plain = rows.std(axis=1) < PLAIN
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    rows[plain] = 0
    return rows
