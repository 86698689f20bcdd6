"""Floor 3. A Bayer sensor: one colour a pixel, the other two interpolated linearly.

The input of learned demosaicking (GRL and its rivals) is not the bare mosaic but three full
channels made from it by the linear filters of Malvar, He and Cutler ("High-quality linear
interpolation for demosaicing of Bayer-patterned color images", ICASSP 2004, figure 2), which is
also MATLAB's `demosaic`. A missing colour is the mean of its neighbours, corrected by a part of the
Laplacian of the colour that is known at the pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

Pattern = Literal["RGGB", "GRBG", "GBRG", "BGGR"]

# The filters of the paper's figure 2 in sixteenths: exact in integers, each with a sum of 1.
GREEN = np.array(  # at red and blue
    [[0, 0, -2, 0, 0], [0, 0, 4, 0, 0], [-2, 4, 8, 4, -2], [0, 0, 4, 0, 0], [0, 0, -2, 0, 0]],
    np.float32,
)
ALONG_ROW = np.array(  # red or blue at a green whose neighbours of that colour lie left and right
    [[0, 0, 1, 0, 0], [0, -2, 0, -2, 0], [-2, 8, 10, 8, -2], [0, -2, 0, -2, 0], [0, 0, 1, 0, 0]],
    np.float32,
)
ACROSS = np.array(  # red at blue, blue at red
    [[0, 0, -3, 0, 0], [0, 4, 0, 4, 0], [-3, 0, 12, 0, -3], [0, 4, 0, 4, 0], [0, 0, -3, 0, 0]],
    np.float32,
)


@dataclass(frozen=True)
class BayerMosaic:
    """The image seen through a colour filter array, then demosaicked linearly; draws nothing.

    `pattern`: the colours of the top left 2×2 pixels, row by row.
    """

    pattern: Pattern = "RGGB"

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """`image: (H, W[, 3])` uint8/uint16 -> the same, demosaicked; gray is taken as RGB of three
        equal channels, and its green is what comes back."""
        colour = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
        seen = demosaicked(mosaic(colour, self.pattern), self.pattern)
        return seen if image.ndim == 3 else np.ascontiguousarray(seen[..., 1])


def mosaic(image: np.ndarray, pattern: Pattern) -> np.ndarray:
    """`(H, W, 3)` -> `(H, W)`: of each pixel the one colour that the sensor has there."""
    sites = np.empty(image.shape[:2], image.dtype)
    for place, colour in enumerate(pattern):
        row, column = divmod(place, 2)
        sites[row::2, column::2] = image[row::2, column::2, "RGB".index(colour)]
    return sites


def demosaicked(sites: np.ndarray, pattern: Pattern) -> np.ndarray:
    """A mosaic `(H, W)` of uint8/uint16 -> `(H, W, 3)` of the same type, rounded and clipped.

    The mosaic goes on beyond its border mirrored about the last pixel, which keeps the pattern.
    """
    peak = int(np.iinfo(sites.dtype).max)
    known = sites.astype(np.float32)
    filtered = {
        "green": _sixteenths(known, GREEN),
        "row": _sixteenths(known, ALONG_ROW),
        "column": _sixteenths(known, ALONG_ROW.T),
        "across": _sixteenths(known, ACROSS),
    }
    image = np.empty((*sites.shape, 3), sites.dtype)
    for place, here in enumerate(pattern):
        row, column = divmod(place, 2)
        for channel, colour in enumerate("RGB"):
            name = _filter_for(colour, here, beside=pattern[place ^ 1])
            plane = known if name is None else filtered[name]
            values = plane[row::2, column::2]
            image[row::2, column::2, channel] = np.clip(np.rint(values), 0, peak)
    return image


def _filter_for(colour: str, here: str, *, beside: str) -> str | None:
    """Which filter gives `colour` at a pixel of colour `here` with `beside` in the same row."""
    if colour == here:
        return None
    if colour == "G":
        return "green"
    if here != "G":
        return "across"
    return "row" if beside == colour else "column"


def _sixteenths(known: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The filtered mosaic. Sums stay below 2^24, so float32 holds them exactly in any order."""
    sums = cv2.filter2D(known, cv2.CV_32F, kernel, borderType=cv2.BORDER_REFLECT_101)
    return np.multiply(sums, np.float32(1 / 16), out=sums)
