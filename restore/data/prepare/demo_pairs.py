"""Floor 3. The demo's blurred, noisy and hazy pairs, in the layouts of GoPro, SIDD and RESIDE.

    GOPRO_Large/train/astronaut/{blur,sharp}/000001.png     GOPRO_Large/test/chelsea/{blur,sharp}/…
    SIDD_Medium_Srgb/Data/0001_…/0001_{GT,NOISY}_SRGB_010.PNG
    SIDD_Validation/Validation{Noisy,Gt}BlocksSrgb.mat      (2, 6, 128, 128, 3)
    ITS/clear/1.png                                         ITS/hazy/1_1_0.64.png    id_k_beta
    SOTS/indoor/gt/1400.png                                 SOTS/indoor/hazy/1400_1.png
    SOTS/outdoor/gt/0001.png                                SOTS/outdoor/hazy/0001_0.8_0.5.png

Strengths are spread evenly over fixed ranges, chosen so that the inputs are about as bad as the
real sets'; all else comes from a generator of the file's own path. The motorcycle's haze follows
its true depth indoors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy.ndimage import distance_transform_edt

from restore.data.blocks import BLOCK_FILES
from restore.data.degradations.build import Degradation, name_rng
from restore.data.degradations.haze import Haze
from restore.data.degradations.motion_blur import MotionBlur
from restore.data.degradations.sensor_noise import SensorNoise

TRAIN = ("astronaut", "rocket", "hubble_deep_field", "retina", "ihc", "brick", "grass", "gravel")
TEST = ("chelsea", "motorcycle_left")
Named = tuple[str, np.ndarray, dict[str, object]]  # path, image or blocks, facts for the manifest

BLUR_TRAIN, BLUR_TEST = (10.0, 24.0), (8.0, 20.0)  # path lengths
BLUR_FRAMES = 3  # of each test image
SHOT = (0.006, 0.03)
BLOCKS, SIDE = 6, 128  # of each test image
BLOCKS_SHAPE = (len(TEST), BLOCKS, SIDE, SIDE, 3)
SIDD = "SIDD_Medium_Srgb/Data/{0:04d}_{0:03d}_DEMO_00000_00000_0000_N/{0:04d}_{1}_SRGB_010.PNG"
ITS_BETA, ITS_AIRLIGHT, ITS_EACH = (0.6, 1.8), (0.7, 1.0), 2
SOTS_INDOOR = ((0.75, 1.0), (0.85, 1.1), (0.95, 1.4), (0.8, 1.6))  # (A, beta)
SOTS_OUTDOOR = ((0.8, 0.5), (0.85, 0.7), (0.9, 0.6), (1.0, 0.9))


@dataclass(frozen=True)
class DemoPair:
    """One pair: where it goes, what it is made from and how."""

    lq: str
    gt: str
    origin: str
    degradation: Degradation
    about: str


def _spread(bounds: tuple[float, float], count: int) -> list[float]:
    """`count` values, the middles of equal parts, dealt out so that neighbours differ."""
    low, high = bounds
    values = [round(low + (high - low) * (k + 0.5) / count, 2) for k in range(count)]
    stride = next(s for s in range(max(count // 2, 1), 2 * count) if math.gcd(s, count) == 1)
    return [values[k * stride % count] for k in range(count)]


def _blurred() -> list[DemoPair]:
    train = [("train", name, 1) for name in TRAIN]
    test = [("test", name, frame + 1) for name in TEST for frame in range(BLUR_FRAMES)]
    lengths = _spread(BLUR_TRAIN, len(train)) + len(TEST) * _spread(BLUR_TEST, BLUR_FRAMES)
    pairs = []
    for (part, name, frame), length in zip(train + test, lengths, strict=True):
        path = f"GOPRO_Large/{part}/{name}/{{}}/{frame:06d}.png"
        blur = MotionBlur(path_length=(length, length))
        about = f"MotionBlur path_length {length}"
        pairs.append(DemoPair(path.format("blur"), path.format("sharp"), name, blur, about))
    return pairs


def _noisy() -> list[DemoPair]:
    pairs = []
    for number, (name, shot) in enumerate(zip(TRAIN, _shots(len(TRAIN)), strict=True), start=1):
        lq, gt = SIDD.format(number, "NOISY"), SIDD.format(number, "GT")
        noise = SensorNoise(shot=(shot, shot))
        pairs.append(DemoPair(lq, gt, name, noise, f"SensorNoise shot {shot}"))
    return pairs


def _shots(count: int) -> list[float]:
    bounds = math.log(SHOT[0]), math.log(SHOT[1])
    return [round(math.exp(value), 4) for value in _spread(bounds, count)]


def _hazy() -> list[DemoPair]:
    pairs = []
    betas = iter(_spread(ITS_BETA, len(TRAIN) * ITS_EACH))
    airlights = iter(_spread(ITS_AIRLIGHT, len(TRAIN) * ITS_EACH)[::-1])
    for number, name in enumerate(TRAIN, start=1):
        for k in range(1, ITS_EACH + 1):
            beta, airlight = next(betas), next(airlights)
            hazy, clear = f"ITS/hazy/{number}_{k}_{beta}.png", f"ITS/clear/{number}.png"
            pairs.append(_behind_haze(hazy, clear, name, "indoor", airlight, beta))
    for number, name in enumerate(TEST[::-1], start=1400):
        for k, (airlight, beta) in enumerate(SOTS_INDOOR, start=1):
            hazy, clear = f"SOTS/indoor/hazy/{number}_{k}.png", f"SOTS/indoor/gt/{number}.png"
            pairs.append(_behind_haze(hazy, clear, name, "indoor", airlight, beta))
    for number, name in enumerate(TEST, start=1):
        for airlight, beta in SOTS_OUTDOOR:
            hazy = f"SOTS/outdoor/hazy/{number:04d}_{airlight:g}_{beta:g}.png"
            clear = f"SOTS/outdoor/gt/{number:04d}.png"
            pairs.append(_behind_haze(hazy, clear, name, "outdoor", airlight, beta))
    return pairs


def _behind_haze(lq: str, gt: str, name: str, scene: str, airlight: float, beta: float) -> DemoPair:
    haze = Haze("indoor" if scene == "indoor" else "outdoor", (beta, beta), (airlight, airlight))
    return DemoPair(lq, gt, name, haze, f"Haze {scene} airlight {airlight} beta {beta}")


PAIRS = (*_blurred(), *_noisy(), *_hazy())
PATHS = (
    *dict.fromkeys(path for pair in PAIRS for path in (pair.gt, pair.lq)),
    *(f"SIDD_Validation/{name}" for name in BLOCK_FILES),
)


def make_pairs(images: Mapping[str, np.ndarray], disparity: np.ndarray) -> Iterator[Named]:
    """All files in the order of PATHS. `images`: origin's stem -> its image, uint8 RGB;
    `disparity`: the motorcycle's."""
    depth = depth_of_motorcycle(disparity)
    made: set[str] = set()
    for pair in PAIRS:
        image, degradation = images[pair.origin], pair.degradation
        if pair.origin == "motorcycle_left" and getattr(degradation, "scene", "") == "indoor":
            assert isinstance(degradation, Haze)
            height, width = image.shape[:2]
            degradation = replace(degradation, depth=depth[:height, :width])
        if pair.gt not in made:
            made.add(pair.gt)
            yield pair.gt, image, _origin(pair.origin)
        lq = degradation(image, name_rng(pair.lq))
        yield pair.lq, lq, _facts(pair.origin, pair.about, psnr(lq, image))
    yield from _blocks(images)


def _facts(origin: str, degradation: str, input_psnr: float) -> dict[str, object]:
    made = {"degradation": degradation, "input_psnr": round(input_psnr, 4)}
    return _origin(origin) | made


def _origin(names: str) -> dict[str, object]:
    return {"origin": f"scikit-image: {names}"}


def _blocks(images: Mapping[str, np.ndarray]) -> Iterator[Named]:
    """The noisy and the clean blocks of the test images, each block under its own noise."""
    clean = np.stack([_cut(images[name]) for name in TEST])
    noisy = np.empty_like(clean)
    scores = []
    for i in range(clean.shape[0]):
        for k, shot in enumerate(_shots(BLOCKS)):
            rng = name_rng(f"{BLOCK_FILES[0]}/{i}/{k}")
            noisy[i, k] = SensorNoise(shot=(shot, shot))(clean[i, k], rng)
            scores.append(psnr(noisy[i, k], clean[i, k]))
    origin, about = " ".join(TEST), f"SensorNoise shot {SHOT[0]} to {SHOT[1]}"
    yield PATHS[-2], noisy, _facts(origin, about, sum(scores) / len(scores))
    yield PATHS[-1], clean, _origin(origin)


def _cut(image: np.ndarray) -> np.ndarray:
    """BLOCKS squares of SIDE pixels, two rows of three, as far apart as the image allows."""
    tops = np.linspace(0, image.shape[0] - SIDE, 2).astype(int)
    lefts = np.linspace(0, image.shape[1] - SIDE, BLOCKS // 2).astype(int)
    return np.stack([image[y : y + SIDE, x : x + SIDE] for y in tops for x in lefts])


def depth_of_motorcycle(disparity: np.ndarray) -> np.ndarray:
    """The scene's depth `(H, W)` over its largest, from disparities in pixels.

    f·B / (disparity + doffs), the factors of which fall out. Pixels without a disparity take that
    of the nearest one that has it. Source: Middlebury 2014 calibration.
    """
    known = np.isfinite(disparity) & (disparity > 0)
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    assert isinstance(nearest, np.ndarray)
    depth = 1 / (disparity[tuple(nearest)] + 31.086)
    return (depth / depth.max()).astype(np.float32)


def psnr(image: np.ndarray, target: np.ndarray) -> float:
    """Over all channels, in dB of 255 (what our metrics say, one floor's wing away)."""
    error = np.square(image.astype(np.float32) - target.astype(np.float32)).mean(dtype=np.float64)
    return 10 * math.log10(255**2 / float(error))
