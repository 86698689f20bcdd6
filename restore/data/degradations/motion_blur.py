"""Floor 3. Camera shake: the mean of what the sensor sees along a short random path.

The path is a random walk with inertia (after Boracchi and Foi, IEEE TIP 2012, as in DeblurGAN's
data); each of its points is a shift and a turn of the whole image, and their mean is the blurred
image. GoPro's `blur` is such a mean of stored values, its `blur_gamma` one of linear light.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

SPACING = 0.7  # pixels between neighbours on the path, at most: no copies that can be told apart
UNIT_SIDE = 640  # the long side that path lengths are given for
# of the walk, in its own steps: random push, pull back to the start, how often a jerk, how strong
PUSH, PULL, JERK_EVERY, JERK = 0.2, 0.005, 25, 2.0


@dataclass(frozen=True)
class MotionBlur:
    """Ranges to draw each image's path from; see the options of the same names."""

    path_length: tuple[float, float] = (8.0, 20.0)
    rotation: tuple[float, float] = (0.0, 0.5)
    subframes: int = 33
    gamma: float = 1.0

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """`image: (H, W[, 3])` uint8/uint16 -> the same, blurred."""
        length = rng.uniform(*self.path_length) * max(image.shape[:2]) / UNIT_SIDE
        turn = math.radians(rng.uniform(*self.rotation))
        frames = max(self.subframes, math.ceil(length / SPACING) + 1)
        path = camera_path(frames, length, rng)
        angles = _swing(frames, turn, rng)
        peak = int(np.iinfo(image.dtype).max)
        if self.gamma == 1.0:
            mean = _mean_along(image, path, angles)
        else:
            light = (np.arange(peak + 1) / peak) ** self.gamma
            mean = _mean_along(np.take(light.astype(np.float32), image), path, angles)
            mean = np.power(mean, np.float32(1 / self.gamma), out=mean) * np.float32(peak)
        return np.clip(np.rint(mean, out=mean), 0, peak, out=mean).astype(image.dtype)


def camera_path(points: int, length: float, rng: np.random.Generator) -> np.ndarray:
    """`(points, 2)` shifts in pixels about their mean, in equal steps that add up to `length`."""
    pushes = rng.normal(0.0, PUSH, (points, 2))
    pushes[rng.random(points) < 1 / JERK_EVERY] *= JERK / PUSH
    heading = rng.uniform(0.0, 2 * math.pi)
    speed = np.array([math.cos(heading), math.sin(heading)])
    path = np.zeros((points, 2))
    for point in range(1, points):
        speed = speed + pushes[point] - PULL * path[point - 1]
        speed /= max(float(np.hypot(*speed)), 1e-9)
        path[point] = path[point - 1] + speed
    return (path - path.mean(axis=0)) * (length / (points - 1))


def _swing(points: int, turn: float, rng: np.random.Generator) -> np.ndarray:
    """`points` angles about zero of a walk with inertia, at most `turn` radians to either side."""
    walk = np.cumsum(np.cumsum(rng.normal(size=points)))
    walk -= np.linspace(walk[0], walk[-1], points) * rng.random()  # some of its drift taken away
    walk -= walk.mean()
    return walk * (turn / max(float(np.abs(walk).max()), 1e-9))


def _mean_along(image: np.ndarray, path: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """The mean of the image shifted and turned about its centre; mirrored beyond its border."""
    height, width = image.shape[:2]
    x, y = (width - 1) / 2, (height - 1) / 2
    total = np.zeros(image.shape, np.float32)
    for (right, down), angle in zip(path, angles, strict=True):
        cos, sin = math.cos(angle), math.sin(angle)
        moved = np.array(
            [[cos, -sin, x - cos * x + sin * y + right], [sin, cos, y - sin * x - cos * y + down]]
        )
        cv2.accumulate(
            cv2.warpAffine(
                image, moved, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
            ),
            total,
        )
    total /= len(path)
    return total
