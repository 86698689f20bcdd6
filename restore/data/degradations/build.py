"""Floor 3. Degradation options -> the degradation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from restore.data.degradations.bayer_mosaic import BayerMosaic
from restore.data.degradations.bicubic import BicubicDown
from restore.data.degradations.gaussian_noise import GaussianNoise
from restore.data.degradations.haze import Haze
from restore.data.degradations.jpeg import Jpeg
from restore.data.degradations.motion_blur import MotionBlur
from restore.data.degradations.sensor_noise import SensorNoise
from restore.section import Section

Degradation = Callable[[np.ndarray, np.random.Generator], np.ndarray]
"""Image (H, W, 3) or (H, W), uint8 or uint16 -> LQ of the same type; all chance from the second."""

SAME_SIZE: Mapping[str, Callable[..., Degradation]] = {
    "MotionBlur": MotionBlur,
    "SensorNoise": SensorNoise,
    "Haze": Haze,
    "GaussianNoise": GaussianNoise,
    "JPEG": Jpeg,
    "BayerMosaic": BayerMosaic,
}
"""Type -> class; its fields are those of the options."""

ON_PATCHES = (BayerMosaic, GaussianNoise)
"""What training makes on a patch that is cut and turned already: a mosaic, whose pattern then
begins at the patch's corner as it does in a tested image's, and noise, which follows one law at any
place and is cheaper for a patch than for its whole image."""


def name_rng(name: str) -> np.random.Generator:
    """A generator that a name alone decides, by its sha256: the same on every machine."""
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(digest))))


def build_degradation(options: Section, scale: int) -> Degradation:
    """The degradation that `options` name; one from outside our tables has a `build(scale)`."""
    entry: Any = options
    if entry.type == "BicubicDown":
        return BicubicDown(scale)
    if entry.type in SAME_SIZE:
        return SAME_SIZE[entry.type](**{key: value for key, value in entry if key != "type"})
    return entry.build(scale)
