"""Floor 3. Haze: the scattering model I = J·t + A·(1 - t), t = exp(-beta·depth), on stored values
as RESIDE makes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np

BETA = {"indoor": (0.6, 1.8), "outdoor": (0.2, 1.0)}
AIRLIGHT = {"indoor": (0.7, 1.0), "outdoor": (0.8, 1.0)}
NEAR = (0.1, 0.3)  # depth of the nearest corner of an indoor plane
HORIZON = (0.15, 0.45)  # of the image's height, from above
GROUND = 0.08  # how far below the horizon, in heights, the ground is as deep as the sky
BUMPS = 0.25  # of the depth, at most
BLOBS = 12  # of these bumps, along a side


@dataclass(frozen=True)
class Haze:
    """Ranges to draw each image's haze and made-up depth from; see the options of these names."""

    scene: Literal["indoor", "outdoor"] = "outdoor"
    beta: tuple[float, float] | None = None
    airlight: tuple[float, float] | None = None
    depth: np.ndarray | None = field(default=None, compare=False, repr=False)
    """`(H, W)`, 1 the farthest: the image's true depth where it is known."""

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """`image: (H, W[, 3])` uint8/uint16 -> the same behind haze."""
        beta = rng.uniform(*(self.beta or BETA[self.scene]))
        airlight = rng.uniform(*(self.airlight or AIRLIGHT[self.scene]))
        depth = self.depth
        if depth is None:
            made_up = indoor_depth if self.scene == "indoor" else outdoor_depth
            depth = made_up(image.shape[0], image.shape[1], rng)
        return scatter(image, depth, beta, airlight)


def scatter(image: np.ndarray, depth: np.ndarray, beta: float, airlight: float) -> np.ndarray:
    """The image behind haze. `depth: (H, W)` with 1 the farthest; `airlight` in [0, 1]."""
    peak = int(np.iinfo(image.dtype).max)
    clear = np.exp(-beta * depth.astype(np.float32))
    clear = clear if image.ndim == 2 else clear[..., None]
    light = np.float32(airlight * peak)
    return np.rint((image - light) * clear + light).astype(image.dtype)


def indoor_depth(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """`(height, width)`, at most 1: a plane that leads away from below, seen at a slant."""
    near, slant = rng.uniform(*NEAR), rng.uniform(-0.5, 0.5)
    up = np.linspace(1.0, 0.0, height, dtype=np.float32)[:, None]
    across = np.linspace(-0.5, 0.5, width, dtype=np.float32)[None]
    plane = up + np.float32(slant) * across
    plane = (plane - plane.min()) / max(float(np.ptp(plane)), 1e-9)
    return near + (1 - near) * plane


def outdoor_depth(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """`(height, width)`, at most 1: sky above a horizon, below it uneven ground 1/(y - horizon)."""
    horizon = rng.uniform(*HORIZON)
    below = np.linspace(0.0, 1.0, height)[:, None] - horizon
    ground = GROUND / np.maximum(below, GROUND)
    small = rng.standard_normal((BLOBS, BLOBS), dtype=np.float32)
    bumps = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    bumps *= BUMPS / max(float(np.abs(bumps).max()), 1e-9)
    return np.minimum(ground.astype(np.float32) * (1 + bumps), 1.0)
