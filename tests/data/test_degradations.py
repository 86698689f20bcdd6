"""Degradations: pure, in range, and as strong and as structured as measurements say they are.

Tolerances: the figures of the real sets and of our measurements are averages over few images, so
1 dB for an average and what is stated for a correlation; exact where there is a formula.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import inspect
import io
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from scipy.ndimage import convolve

from restore import images
from restore.data.degradations import haze, sensor_noise
from restore.data.degradations.bayer_mosaic import BayerMosaic, Pattern, demosaicked, mosaic
from restore.data.degradations.build import SAME_SIZE, Degradation, build_degradation, name_rng
from restore.data.degradations.gaussian_noise import GaussianNoise
from restore.data.degradations.haze import Haze, indoor_depth, outdoor_depth, scatter
from restore.data.degradations.jpeg import Jpeg, compressed
from restore.data.degradations.motion_blur import MotionBlur, camera_path
from restore.data.degradations.sensor_noise import SensorNoise
from restore.data.options import DEGRADATIONS, DegradedImageDataset
from restore.errors import DataError
from restore.ops.resize import imresize
from restore.section import Section

ALL: dict[str, Degradation] = {
    "blur": MotionBlur(),
    "blur_gamma": MotionBlur(gamma=2.2),
    "noise": SensorNoise(),
    "noise_raw": SensorNoise(chroma_sigma=0),
    "indoor": Haze("indoor"),
    "outdoor": Haze("outdoor"),
    "gaussian": GaussianNoise(25.0),
    "gaussian_range": GaussianNoise((5.0, 50.0)),
    "jpeg": Jpeg(10),
    "jpeg_range": Jpeg((5, 95)),
    "mosaic": BayerMosaic("GBRG"),
}
DRAWS_NOTHING = (Jpeg(10), BayerMosaic("GBRG"))
every = pytest.mark.parametrize("degrade", ALL.values(), ids=ALL.keys())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise_image(*shape: int) -> np.ndarray:
    return rng(9).integers(0, 256, shape or (40, 52, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def photos() -> list[np.ndarray]:
    package = importlib.util.find_spec("skimage")
    assert package is not None and package.origin is not None
    folder = Path(package.origin).parent / "data"
    names = ("astronaut.png", "coffee.png", "chelsea.png", "motorcycle_left.png")
    return [images.read(folder / name) for name in names]


def psnr(image: np.ndarray, target: np.ndarray) -> float:
    error = np.square(image.astype(np.float64) - target).mean()
    return float(10 * np.log10(float(np.iinfo(image.dtype).max) ** 2 / error))


def mean_psnr(degrade: Degradation, photos: list[np.ndarray], draws: int = 8) -> float:
    return float(np.mean([psnr(degrade(p, rng(s)), p) for p in photos for s in range(draws)]))


# all ----------------------------------------------------------------------------------------------


@every
def test_the_generator_decides_everything(degrade: Degradation) -> None:
    image = noise_image()
    before = image.copy()
    image.flags.writeable = False
    everyones = np.random.get_state()[1]
    one, same, other = (degrade(image, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert np.array_equal(one, other) == (degrade in DRAWS_NOTHING)
    assert np.array_equal(image, before)
    assert np.array_equal(everyones, np.random.get_state()[1])


@every
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_same_shape_and_type(degrade: Degradation, dtype: type) -> None:
    for sides in ((1, 1), (2, 3), (7, 5), (1, 40), (33, 2)):
        for shape in (sides, (*sides, 3)):
            image = noise_image(*shape).astype(dtype)
            found = degrade(image, rng())
            assert found.shape == shape and found.dtype == dtype
            assert found is not image and found.flags.c_contiguous
    cut = noise_image(30, 30, 3).astype(dtype)[5:20, 3:29]  # as a cut GT comes: not contiguous
    assert np.array_equal(degrade(cut, rng()), degrade(cut.copy(), rng()))


@every
def test_sixteen_bits_say_the_same(degrade: Degradation) -> None:
    image = noise_image()
    wide = degrade(image.astype(np.uint16) * 257, rng(3)) / 257
    assert np.abs(wide - degrade(image, rng(3))).max() <= 1.01


@every
@pytest.mark.parametrize("value", [0, 255])
def test_extremes_do_not_wrap_around(degrade: Degradation, value: int) -> None:
    found = degrade(np.full((30, 30, 3), value, np.uint8), rng()).astype(int)
    assert np.abs(found - value).mean() < 255 * 0.75


def test_names_decide_the_generator() -> None:
    assert name_rng("0001.png").integers(1 << 60) == name_rng("0001.png").integers(1 << 60)
    assert name_rng("0001.png").integers(1 << 60) != name_rng("0002.png").integers(1 << 60)
    assert name_rng("b\udcffad.png").integers(9) >= 0  # a name that is no UTF-8


# options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAME_SIZE)
def test_options_and_classes_agree(name: str) -> None:
    fields = {k: v.default for k, v in DEGRADATIONS[name].model_fields.items() if k != "type"}
    built = {f.name: f.default for f in dataclasses.fields(SAME_SIZE[name])}  # type: ignore
    built = {k: v for k, v in built.items() if k in inspect.signature(SAME_SIZE[name]).parameters}
    built.pop("depth", None)  # an array: no option
    assert fields.keys() == built.keys()
    required = {"sigma", "quality"}  # have no default, and each its own sign of that
    assert {k: v for k, v in fields.items() if k not in required} == {
        k: v for k, v in built.items() if k not in required
    }


def test_every_degradation_of_the_table_is_built() -> None:
    assert set(DEGRADATIONS) == {"BicubicDown", *SAME_SIZE}
    chosen = {"type": "SensorNoise", "shot": (0.01, 0.02), "chroma_sigma": 0.0}
    options = DegradedImageDataset(dataroot_gt="x", degradation=chosen)  # type: ignore
    assert build_degradation(options.degradation, 1) == SensorNoise((0.01, 0.02), chroma_sigma=0.0)


@pytest.mark.parametrize(
    "chosen",
    [
        {"type": "MotionBlur", "path_length": (20.0, 8.0)},
        {"type": "MotionBlur", "gamma": 0.0},
        {"type": "MotionBlur", "subframes": 1},
        {"type": "SensorNoise", "shot": (0.0, 0.1)},
        {"type": "Haze", "airlight": (0.5, 1.5)},
        {"type": "Haze", "scene": "space"},
        {"type": "GaussianNoise"},
        {"type": "GaussianNoise", "sigma": -1.0},
        {"type": "GaussianNoise", "sigma": (50.0, 5.0)},
        {"type": "GaussianNoise", "sigma": "25"},
        {"type": "BicubicDown", "sigma": 1.0},
        {"type": "JPEG"},
        {"type": "JPEG", "quality": 0},
        {"type": "JPEG", "quality": 101},
        {"type": "JPEG", "quality": 10.5},
        {"type": "JPEG", "quality": (40, 10)},
        {"type": "JPEG", "quality": (10, 20, 30, 40)},
        {"type": "BayerMosaic", "pattern": "RGBG"},
        {"type": "BayerMosaic", "pattern": "rggb"},
    ],
)
def test_wrong_options(chosen: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Section.model_validate(DEGRADATIONS[str(chosen["type"])].model_validate(chosen))


# motion blur --------------------------------------------------------------------------------------


def test_camera_path() -> None:
    for seed in range(20):
        path = camera_path(33, 14.0, rng(seed))
        steps = np.hypot(*np.diff(path, axis=0).T)
        assert path.shape == (33, 2) and np.allclose(steps, 14 / 32)
        assert np.allclose(path.mean(axis=0), 0, atol=1e-12)
        turns = np.diff(np.unwrap(np.arctan2(*np.diff(path, axis=0).T)))
        assert np.median(np.abs(turns)) < 0.5  # inertia: it mostly goes on as it went


def test_no_path_no_blur() -> None:
    image = noise_image()
    still = MotionBlur(path_length=(0.0, 0.0), rotation=(0.0, 0.0))
    assert np.array_equal(still(image, rng()), image)
    still = dataclasses.replace(still, gamma=2.2)
    assert np.abs(still(image, rng()).astype(int) - image).max() <= 1


def test_plain_blur_keeps_the_mean_and_linear_light_is_brighter(photos: list[np.ndarray]) -> None:
    photo = photos[0]
    for seed in range(4):
        plain, light = (MotionBlur(gamma=g)(photo, rng(seed)).astype(int) for g in (1.0, 2.2))
        assert abs(plain.mean() - photo.mean()) < 0.5
        assert (light - plain).min() >= -1  # power means: never darker, but for rounding
        assert (light - plain).mean() > 0.3


def test_blur_of_a_point_is_the_path() -> None:
    """The point spread has the path's extent and holds all the light."""
    image = np.zeros((65, 65), np.uint16)
    image[32, 32] = 60000
    still = MotionBlur(path_length=(100.0, 100.0), rotation=(0.0, 0.0))
    found = still(image, rng(4)).astype(float)
    assert abs(found.sum() / 60000 - 1) < 0.01
    generator = rng(4)
    generator.uniform(), generator.uniform()
    path = camera_path(33, 100 * 65 / 640, generator)
    rows, columns = np.nonzero(found)
    for places, shifts in ((columns, path[:, 0]), (rows, path[:, 1])):
        assert abs(places.min() - 32 - shifts.min()) <= 1
        assert abs(places.max() - 32 - shifts.max()) <= 1


def test_long_paths_leave_no_ghosts(photos: list[np.ndarray]) -> None:
    photo = np.tile(photos[0], (1, 4, 1))  # 2048 wide: 20 px of path become 64
    blur = MotionBlur((20.0, 20.0), (0.0, 0.0), subframes=2)
    column = np.zeros_like(photo[..., 0])
    column[:, 1000] = 255
    profile = blur(column, rng(1))[200].astype(float)
    inside = profile[profile > 0]
    assert len(inside) > 8 and np.diff(np.nonzero(profile)[0]).max() == 1


def test_blur_strength(photos: list[np.ndarray]) -> None:
    assert abs(mean_psnr(MotionBlur(), photos) - 25.6) < 1.0  # GoPro's test set
    short, long = (mean_psnr(MotionBlur((side, side)), photos) for side in (8.0, 20.0))
    assert short > long + 2
    assert mean_psnr(MotionBlur(gamma=2.2), photos) < mean_psnr(MotionBlur(), photos)


# sensor noise -------------------------------------------------------------------------------------


def correlations(noise: np.ndarray) -> tuple[float, float]:
    """(between horizontal neighbours, between red and green)."""
    centred = noise - noise.mean(axis=(0, 1))
    neighbours = (centred[:, 1:] * centred[:, :-1]).mean() / (centred**2).mean()
    return neighbours, float(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1])


def test_development_is_undone() -> None:
    stored = np.linspace(0, 1, 1001)
    assert np.allclose(sensor_noise._stored(sensor_noise._light(stored)), stored, atol=1e-6)


def test_without_noise_the_image_comes_back(photos: list[np.ndarray]) -> None:
    clean = SensorNoise(shot=(1e-12, 1e-12), read_spread=0.0)
    assert np.abs(clean(photos[0], rng()).astype(int) - photos[0]).max() <= 1


def test_raw_variance_is_a_line() -> None:
    """Of green sites, where demosaicking changes nothing: var = a·x + b with the a, b asked for."""
    a = 0.002
    b = np.exp(2.18 * np.log(a) + 1.20)
    noise = SensorNoise(shot=(a, a), read_spread=0.0, chroma_sigma=0.0)
    levels = np.array([0.3, 0.45, 0.6, 0.7])
    lights, variances = [], []
    for level in levels:
        image = np.full((512, 512, 3), round(level * 65535), np.uint16)
        green = noise(image, rng(5))[::2, 1::2, 1] / 65535
        lights.append(float(sensor_noise._light(np.array(level))))
        variances.append(sensor_noise._light(green).var())
    slope, offset = np.polyfit(lights, variances, 1)
    white = a / slope  # raw = light·white, so var(light) = a/white·light + b/white²
    assert 0.4 <= white <= 1.0
    assert offset * white**2 == pytest.approx(b, rel=0.15)
    fitted = a / white * np.array(lights) + b / white**2
    assert np.allclose(variances, fitted, rtol=0.03)


def test_noise_strength_and_structure(photos: list[np.ndarray]) -> None:
    noise = SensorNoise()
    assert abs(mean_psnr(noise, photos) - 23.9) < 1.0  # SIDD's validation blocks: about 23.7
    found = [correlations(noise(p, rng(s)).astype(float) - p) for p in photos for s in range(3)]
    neighbours, channels = np.mean(found, axis=0)
    assert 0.45 < neighbours < 0.75  # measured on real noise: CC15 .61, PolyU .54
    assert 0.55 < channels < 0.90  # CC15 .64, PolyU .85
    white = [correlations(GaussianNoise(10.0)(p, rng()).astype(float) - p) for p in photos]
    assert np.abs(white).max() < 0.1
    raw = SensorNoise(chroma_sigma=0.0)
    flat = np.full((256, 256, 3), 128, np.uint8)
    assert correlations(raw(flat, rng()).astype(float))[1] < 0.45  # colour smoothing makes it


def test_gray_noise_is_green_s() -> None:
    gray = noise_image(64, 64)
    colour = SensorNoise()(np.dstack([gray] * 3), rng(2))
    assert np.array_equal(SensorNoise()(gray, rng(2)), colour[..., 1])


# haze ---------------------------------------------------------------------------------------------


def test_scattering_model() -> None:
    image = noise_image()
    depth = rng(1).random(image.shape[:2])
    found = scatter(image, depth, 1.2, 0.9)
    clear = np.exp(-1.2 * depth)[..., None]
    assert np.abs(found - (image * clear + 0.9 * 255 * (1 - clear))).max() <= 0.51
    assert np.array_equal(scatter(image, depth, 0.0, 0.9), image)
    assert (scatter(image, np.ones(image.shape[:2]), 60.0, 0.8) == 204).all()
    given = Haze("indoor", (1.2, 1.2), (0.9, 0.9), depth=depth)
    assert np.array_equal(given(image, rng()), found)


@pytest.mark.parametrize("scene", ["indoor", "outdoor"])
def test_haze_stays_in_its_ranges(scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[float, float]] = []

    def spy(image: np.ndarray, depth: np.ndarray, beta: float, airlight: float) -> np.ndarray:
        drawn.append((beta, airlight))
        return image

    monkeypatch.setattr(haze, "scatter", spy)
    for seed in range(400):
        Haze("indoor" if scene == "indoor" else "outdoor")(noise_image(4, 4, 3), rng(seed))
    for values, bounds in zip(
        zip(*drawn, strict=True), (haze.BETA[scene], haze.AIRLIGHT[scene]), strict=True
    ):
        assert bounds[0] <= min(values) < bounds[0] + 0.02 * bounds[1]
        assert bounds[1] >= max(values) > bounds[1] * 0.98
    drawn.clear()
    Haze("outdoor", (0.5, 0.5), (0.7, 0.7))(noise_image(4, 4, 3), rng())
    assert drawn == [(0.5, 0.7)]


@pytest.mark.parametrize("made_up", [indoor_depth, outdoor_depth])
def test_depth_leads_away_from_below(made_up: Callable[..., np.ndarray]) -> None:
    for seed in range(20):
        depth = made_up(120, 160, rng(seed))
        assert depth.shape == (120, 160)
        assert 0 < depth.min() < 0.5 and depth.max() == pytest.approx(1, abs=1e-6)
        assert depth[:10].mean() > depth[-10:].mean() + 0.2


def test_haze_strength(photos: list[np.ndarray]) -> None:
    assert abs(mean_psnr(Haze("indoor"), photos, 30) - 12.0) < 1.0  # SOTS indoor
    assert abs(mean_psnr(Haze("outdoor"), photos, 30) - 15.9) < 1.0  # SOTS outdoor


# Gaussian noise -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma, decibel", [(15.0, 24.609), (25.0, 20.172), (2.0, 42.110)])
def test_gaussian_noise_where_nothing_clips(sigma: float, decibel: float) -> None:
    gray = np.full((512, 512), 128 * 257, np.uint16)
    noisy = GaussianNoise(sigma)(gray, rng())
    assert psnr(noisy, gray) == pytest.approx(decibel, abs=0.03)
    assert abs(noisy.mean() / 257 - 128) < 0.1


@pytest.mark.parametrize("sigma, decibel", [(15.0, 24.84), (25.0, 20.54), (50.0, 15.00)])
def test_clipping_costs_what_it_is_said_to(
    sigma: float, decibel: float, photos: list[np.ndarray]
) -> None:
    assert abs(mean_psnr(GaussianNoise(sigma), photos, 1) - decibel) < 0.3  # CBSD68's


def test_gaussian_range() -> None:
    gray = np.full((64, 64), 128, np.uint8)
    found = [float(GaussianNoise((5.0, 30.0))(gray, rng(s)).std()) for s in range(100)]
    assert 4.5 < min(found) < 8 and 27 < max(found) < 31


def test_bicubic_stays_what_it_was() -> None:
    image = noise_image()
    bicubic = build_degradation(DEGRADATIONS["BicubicDown"](), 4)
    assert np.array_equal(bicubic(image, rng()), imresize(image, 1 / 4))


# JPEG ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [1, 10, 40, 75, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_opencv_makes_by_default(
    quality: int, channels: int, photos: list[np.ndarray]
) -> None:
    image = photos[0] if channels == 3 else np.ascontiguousarray(photos[0][..., 1])
    bgr = image[..., ::-1] if channels == 3 else image
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    flags = cv2.IMREAD_COLOR_RGB if channels == 3 else cv2.IMREAD_GRAYSCALE
    assert np.array_equal(compressed(image, quality), cv2.imdecode(data, flags))


@pytest.mark.parametrize("quality", [10, 40])
def test_jpeg_agrees_with_another_encoder(quality: int, photos: list[np.ndarray]) -> None:
    """Pillow: its own libjpeg, told 4:2:0; fuller chroma would be nearer to the image."""
    image, other = photos[1], {}
    for sampling in (0, 2):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling=sampling)
        other[sampling] = np.array(Image.open(buffer))
    ours = compressed(image, quality).astype(int)
    assert np.abs(ours - other[2]).max() <= 2
    assert np.abs(ours - other[0]).max() > 20


def test_jpeg_quality(shared: Path) -> None:
    """The published inputs of BSD500 in gray: 27.80, 30.05, 31.37, 32.30 dB. Other images of it."""
    files = images.list_images(shared / "data/BSDS500/train")[::3]
    gray = [images.as_gray(images.read(file, channels=3), "rgb2ycbcr") for file in files]
    found = [mean_psnr(Jpeg(q), gray, 1) for q in (10, 20, 30, 40)]
    assert np.allclose(found, [27.80, 30.05, 31.37, 32.30], atol=0.7)
    assert np.allclose(np.diff(found), [2.25, 1.32, 0.93], atol=0.1)


def test_jpeg_is_compressed_in_blocks_of_eight(photos: list[np.ndarray]) -> None:
    gray = np.ascontiguousarray(photos[0][:64, :64, 1])
    changed = gray.copy()
    changed[17:19, 25:29] ^= 0x80  # in the block of rows 16..23, columns 24..31
    differs = compressed(gray, 10) != compressed(changed, 10)
    rows, columns = np.nonzero(differs)
    assert differs.any() and set(rows) <= set(range(16, 24)) and set(columns) <= set(range(24, 32))


def test_jpeg_draws_every_quality_of_its_range() -> None:
    image = noise_image(16, 16)
    wanted = {compressed(image, q).tobytes() for q in (10, 11, 12)}
    assert {Jpeg((10, 12))(image, rng(s)).tobytes() for s in range(60)} == wanted


def test_jpeg_of_sixteen_bits_is_that_of_the_nearest_eight() -> None:
    image = noise_image().astype(np.uint16)
    for offset in (-128, 128):
        near = np.clip(image.astype(int) * 257 + offset, 0, 65535).astype(np.uint16)
        assert np.array_equal(Jpeg(30)(near, rng()), compressed(noise_image(), 30) * np.uint16(257))


def test_an_image_too_large_for_jpeg() -> None:
    with pytest.raises(DataError, match=r"IMG13.*70000x1 pixels"):
        Jpeg(10)(np.zeros((1, 70000), np.uint8), rng())


# Bayer mosaic -------------------------------------------------------------------------------------

PATTERNS: tuple[Pattern, ...] = ("RGGB", "GRBG", "GBRG", "BGGR")
every_pattern = pytest.mark.parametrize("pattern", PATTERNS)


def malvar(image: np.ndarray, pattern: str) -> np.ndarray:
    """The filters of Malvar, He and Cutler (2004), written as sums of neighbours and Laplacians of
    the masked channels, in float64; not rounded. Colour -> demosaicked."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    site = np.array(list(pattern)).reshape(2, 2)[y % 2, x % 2]
    raw = sum(image[..., c] * (site == colour) for c, colour in enumerate("RGB")).astype(float)

    def weighed(kernel: np.ndarray) -> np.ndarray:
        return convolve(raw, kernel, mode="mirror")

    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]]) / 4
    wide = np.zeros((5, 5))
    wide[[0, 2, 2, 4], [2, 0, 4, 2]] = 1 / 4
    corners = np.array([[1, 0, 1], [0, 0, 0], [1, 0, 1]]) / 4
    row = np.array([[1, 0, 1]]) / 2
    ahead, above = np.zeros((5, 5)), np.zeros((5, 5))
    ahead[2, [0, 4]] = above[[0, 4], 2] = 1
    far = raw - weighed(wide)
    # at green: 5 of itself, less its corners and the two ahead, plus half of the two above
    green = (5 * raw - 4 * weighed(corners) - weighed(ahead) + weighed(above) / 2) / 8
    green_t = (5 * raw - 4 * weighed(corners) - weighed(above) + weighed(ahead) / 2) / 8
    beside = site[:, ::-1] if image.shape[1] % 2 == 0 else np.roll(site, 1, axis=1)
    found = np.empty(image.shape)
    for c, colour in enumerate("RGB"):
        if colour == "G":
            found[..., c] = np.where(site == "G", raw, weighed(cross) + far / 2)
            continue
        at_green = np.where(beside == colour, weighed(row) + green, weighed(row.T) + green_t)
        found[..., c] = np.where(
            site == colour, raw, np.where(site == "G", at_green, weighed(corners) + far * 3 / 4)
        )
    return found


@every_pattern
def test_demosaicking_is_malvar_s(pattern: Pattern) -> None:
    for shape in ((24, 30, 3), (9, 12, 3), (6, 6, 3)):
        image = noise_image(*shape)
        wanted = np.clip(np.rint(malvar(image, pattern)), 0, 255)
        assert np.array_equal(BayerMosaic(pattern)(image, rng()), wanted)


@every_pattern
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_constant_colours_come_back(pattern: Pattern, dtype: type) -> None:
    for sides in ((1, 1), (2, 2), (7, 9), (8, 8)):
        gray = np.full((*sides, 3), np.iinfo(dtype).max - 3, dtype)
        assert np.array_equal(BayerMosaic(pattern)(gray, rng()), gray)
    colour = np.full((12, 14, 3), (10, 200, 90), dtype)
    assert np.array_equal(BayerMosaic(pattern)(colour, rng()), colour)


@every_pattern
def test_planes_come_back_away_from_the_border(pattern: Pattern) -> None:
    """Each channel its own linear ramp: all filters are exact for those, but not where mirrored."""
    y, x = np.mgrid[:20, :24]
    image = np.stack([4 * x + 2 * y + 20, 2 * x + 4 * y + 30, 120 - 2 * x + 2 * y], 2)
    found = BayerMosaic(pattern)(image.astype(np.uint8), rng())
    assert np.array_equal(found[2:-2, 2:-2], image[2:-2, 2:-2])


@every_pattern
def test_known_colours_stay(pattern: Pattern) -> None:
    image = noise_image(10, 14, 3)
    found = BayerMosaic(pattern)(image, rng())
    assert np.array_equal(mosaic(found, pattern), mosaic(image, pattern))
    for place, colour in enumerate(pattern):
        at = (slice(place // 2, None, 2), slice(place % 2, None, 2), "RGB".index(colour))
        assert np.array_equal(found[at], image[at])


def test_patterns_are_each_other_shifted() -> None:
    image = noise_image(20, 24, 3)
    whole = BayerMosaic("RGGB")(image, rng())
    for pattern, (top, left) in zip(PATTERNS, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        cut = BayerMosaic(pattern)(image[top:, left:], rng())
        assert np.array_equal(cut[2:-2, 2:-2], whole[top:, left:][2:-2, 2:-2])
        mirrored = np.ascontiguousarray(image[::-1, ::-1])
        assert np.array_equal(
            BayerMosaic(pattern)(mirrored, rng())[::-1, ::-1],
            BayerMosaic(pattern[::-1])(image, rng()),  # type: ignore (even sides)
        )


def test_gray_mosaic_is_green_s() -> None:
    gray = noise_image(12, 12)
    colour = BayerMosaic()(np.dstack([gray] * 3), rng())
    assert np.array_equal(BayerMosaic()(gray, rng()), colour[..., 1])


def test_demosaicking_beats_the_bilinear_one(photos: list[np.ndarray]) -> None:
    for photo in photos:
        sites = mosaic(photo, "RGGB")
        bilinear = sensor_noise._demosaic(sites.astype(np.float32))
        assert (
            psnr(demosaicked(sites, "RGGB"), photo)
            > psnr(np.rint(bilinear).astype(np.uint8), photo) + 2
        )
