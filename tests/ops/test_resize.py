"""imresize against a slow twin written from MATLAB's documented rules, and against real files."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore import images
from restore.ops.resize import exact_scale, imresize

SCALES = ["1/2", "1/3", "1/4", "37/100", "2", "3", "4", "3/2"]
FIXTURE = Path(__file__).parents[1] / "fixtures/resize.npz"


# The slow twin ------------------------------------------------------------------------------------


def keys_cubic(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    if x <= 2:
        return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return 0.0


def source_pixel(position: int, side: int, edge: str) -> int:
    """Where a tap at 0-based `position` reads: walks back from the border, pixel by pixel."""
    if edge == "clamp":
        return min(max(position, 0), side - 1)
    while not 0 <= position < side:
        position = -1 - position if position < 0 else 2 * side - 1 - position
    return position


def taps(out: int, side: int, scale: float, edge: str) -> list[tuple[int, float]]:
    """(source pixel, weight) of output pixel `out` along one axis; the weights sum to 1."""
    stretch = max(1.0, 1 / scale)
    centre = (out + 0.5) / scale - 0.5
    first, last = math.floor(centre - 2 * stretch), math.ceil(centre + 2 * stretch)
    weights = [keys_cubic((centre - j) / stretch) for j in range(first, last + 1)]
    total = sum(weights)
    return [
        (source_pixel(j, side, edge), weight / total)
        for j, weight in zip(range(first, last + 1), weights, strict=True)
    ]


class Twin(NamedTuple):
    """What the twin computed, and where it hangs on how an exact half was rounded.

    Weights such as 1/6 are not binary fractions, so that 154.5 may come out a last bit above or
    below, here as in MATLAB. Where all weights are binary fractions nothing is left open.
    """

    values: np.ndarray
    open: np.ndarray


def slow_plane(
    plane: np.ndarray, out: tuple[int, int], scales: tuple[float, float], edge: str, between: bool
) -> Twin:
    """One channel. The axis with the smaller scale goes first, the vertical one on a tie."""
    top = np.iinfo(plane.dtype).max if plane.dtype.kind == "u" else None
    binary = all(math.log2(scale).is_integer() for scale in scales)
    values, unsure = plane.astype(np.float64), np.zeros(plane.shape, bool)
    for number, axis in enumerate((0, 1) if scales[0] <= scales[1] else (1, 0)):
        values, unsure = np.moveaxis(values, axis, 1), np.moveaxis(unsure, axis, 1)
        lines = [taps(i, values.shape[1], scales[axis], edge) for i in range(out[axis])]
        summed = [[sum(w * row[j] for j, w in line) for line in lines] for row in values.tolist()]
        spread = [[any(row[j] for j, w in line if w) for line in lines] for row in unsure.tolist()]
        values, unsure = np.array(summed), np.array(spread)
        if top is not None and (between or number == 1):
            tie = np.abs(values - np.floor(values) - 0.5) < 1e-9
            unsure |= tie & (not binary) & (values > 0) & (values < top)
            values = np.array([[min(max(math.floor(v + 0.5), 0), top) for v in r] for r in values])
        values, unsure = np.moveaxis(values, 1, axis), np.moveaxis(unsure, 1, axis)
    return Twin(values.astype(plane.dtype), unsure)


def slow(
    image: np.ndarray,
    scale: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    edge: str = "mirror",
    between: bool = True,
) -> Twin:
    height, width = image.shape[:2]
    if size is None:
        assert scale is not None
        factor = Fraction(scale)
        out, scales = (math.ceil(height * factor), math.ceil(width * factor)), (float(factor),) * 2
    else:
        out, scales = size, (size[0] / height, size[1] / width)
    if image.ndim == 2:
        return slow_plane(image, out, scales, edge, between)
    planes = [slow_plane(image[..., c], out, scales, edge, between) for c in range(image.shape[2])]
    return Twin(*(np.stack(parts, axis=-1) for parts in zip(*planes, strict=True)))


def pixels(shape: tuple[int, ...], dtype: str, seed: int = 0) -> np.ndarray:
    """Extremes and all between, so that the cubic overshoots."""
    rng = np.random.default_rng(seed)
    values = rng.choice([0.0, 1.0, rng.random()], size=shape) * 0.7 + 0.3 * rng.random(shape)
    if dtype.startswith("float"):
        return values.astype(dtype)
    top = np.iinfo(dtype).max
    return np.rint(
        np.where(rng.random(shape) < 0.3, rng.integers(0, 2, shape), values) * top
    ).astype(dtype)


def near(found: np.ndarray, expected: Twin | np.ndarray) -> None:
    values, unsure = expected if isinstance(expected, Twin) else (expected, None)
    assert found.dtype == values.dtype and found.shape == values.shape
    if found.dtype.kind == "u":
        wrong = np.abs(found.astype(int) - values.astype(int))
        assert wrong.max() <= (0 if unsure is None else 1)
        assert not (wrong[~unsure].any() if unsure is not None else wrong.any())
    else:
        slack = 1e-13 if found.dtype == np.float64 else 2e-6
        np.testing.assert_allclose(found, values, rtol=0, atol=slack)


# Against the twin ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(9, 7), (5, 8, 3)], ids=["gray", "rgb"])
def test_every_scale_and_type(scale: str, dtype: str, shape: tuple[int, ...]) -> None:
    image = pixels(shape, dtype)
    before = image.copy()
    near(imresize(image, Fraction(scale)), slow(image, scale))
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("edge", ["mirror", "clamp"])
@pytest.mark.parametrize("between", [True, False])
def test_every_edge_and_rounding(scale: str, edge: Any, between: bool) -> None:
    image = pixels((8, 6), "uint8", seed=1)
    found = imresize(image, exact_scale(scale), edge=edge, round_between_passes=between)
    near(found, slow(image, scale, edge=edge, between=between))


def test_edges_and_roundings_are_not_the_same() -> None:
    """So that the test above could tell them apart."""
    image = pixels((24, 18), "uint8", seed=1)
    usual = imresize(image, 1 / 3)
    once = imresize(image, 1 / 3, round_between_passes=False)
    assert (usual != imresize(image, 1 / 3, edge="clamp")).any() and (usual != once).any()
    assert np.abs(usual.astype(int) - once).max() <= 2


@pytest.mark.parametrize("height", [1, 2, 3, 5])
@pytest.mark.parametrize("width", [1, 2, 4])
@pytest.mark.parametrize("edge", ["mirror", "clamp"])
def test_sides_shorter_than_the_kernel(height: int, width: int, edge: Any) -> None:
    image = pixels((height, width), "uint8", seed=height * 10 + width)
    for scale in SCALES:
        near(imresize(image, exact_scale(scale), edge=edge), slow(image, scale, edge=edge))


@pytest.mark.parametrize("size", [(4, 12), (12, 4), (1, 9), (7, 6), (3, 2), (20, 1)])
@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_a_size_of_its_own_for_each_axis(size: tuple[int, int], dtype: str) -> None:
    image = pixels((7, 6, 3), dtype, seed=2)
    near(imresize(image, size=size), slow(image, size=size))


def test_the_more_shrunk_axis_goes_first() -> None:
    """Rounding between the passes makes the order visible."""
    image = pixels((40, 40), "uint8", seed=3)
    for size in ((30, 7), (7, 30)):
        found = imresize(image, size=size)
        near(found, slow(image, size=size))
        turned = imresize(image.T, size=size[::-1]).T
        near(found, np.ascontiguousarray(turned))


def test_vertical_goes_first_on_a_tie() -> None:
    image = pixels((40, 40), "uint8", seed=3)
    assert (imresize(image, 0.25) != imresize(image.T, 0.25).T).any()


def test_views_and_strides_do_not_matter() -> None:
    whole = pixels((14, 12, 3), "uint8", seed=4)
    view = whole[1:-1:2, ::-1, ::2]
    near(imresize(view, 0.5), slow(np.ascontiguousarray(view), "1/2"))


# Against numbers that were stored -----------------------------------------------------------------


def fixture_cases() -> Iterator[tuple[str, dict[str, Any], np.ndarray]]:
    """(scale, options of the twin, input) of every stored result, in the stored order."""
    gray, rgb = pixels((7, 6), "uint8", seed=5), pixels((4, 5, 3), "uint8", seed=6)
    for scale in SCALES[:-1]:
        for edge in ("mirror", "clamp"):
            for between in (True, False):
                yield scale, {"edge": edge, "between": between}, gray
        yield scale, {}, rgb
        yield scale, {}, pixels((4, 3), "uint16", seed=7)
    for scale in SCALES[::-3]:
        yield scale, {}, pixels((7, 6), "float64", seed=8)
        yield scale, {}, pixels((7, 6), "float32", seed=9)


def test_the_stored_numbers() -> None:
    """Holds the twin itself in place, and does so without running it."""
    stored = np.load(FIXTURE)
    at = {str(name): 0 for name in stored}
    for scale, options, image in fixture_cases():
        name = image.dtype.name
        between = options.get("between", True)
        edge = options.get("edge", "mirror")
        found = imresize(image, exact_scale(scale), edge=edge, round_between_passes=between)
        expected = stored[name][at[name] : at[name] + found.size].reshape(found.shape)
        at[name] += found.size
        near(found, expected)
    assert at == {str(name): len(stored[name]) for name in stored}
    assert FIXTURE.stat().st_size <= 10_000


def write_fixture() -> None:
    """`python tests/ops/test_resize.py`: only after a change of the cases above."""
    results: dict[str, list[np.ndarray]] = {}
    for scale, options, image in fixture_cases():
        twin = slow(image, scale, **options)
        assert not twin.open.any()
        results.setdefault(image.dtype.name, []).append(twin.values.ravel())
    np.savez_compressed(FIXTURE, **{name: np.concatenate(r) for name, r in results.items()})


# Laws ---------------------------------------------------------------------------------------------

SIDES = st.integers(1, 20)
FACTORS = st.fractions(min_value=Fraction(1, 8), max_value=4, max_denominator=60)


@settings(max_examples=80)
@given(SIDES, SIDES, FACTORS, st.integers(0, 255), st.sampled_from(["mirror", "clamp"]))
def test_a_constant_image_stays_constant(
    height: int, width: int, scale: Fraction, value: int, edge: Any
) -> None:
    for dtype in (np.uint8, np.uint16, np.float32, np.float64):
        found = imresize(np.full((height, width), value, dtype), scale, edge=edge)
        assert found.shape == (math.ceil(height * scale), math.ceil(width * scale))
        if found.dtype.kind == "u":
            assert (found == value).all()
        else:
            np.testing.assert_allclose(found, value, rtol=1e-5 if dtype == np.float32 else 1e-13)


@settings(max_examples=60)
@given(SIDES, SIDES, FACTORS, st.integers(0, 1000))
def test_turning_the_image_turns_the_result(h: int, w: int, scale: Fraction, seed: int) -> None:
    if (h * scale).denominator > 1 or (w * scale).denominator > 1:
        scale = Fraction(1, 2)  # a side that is rounded up lets the grid slip to one end
        h, w = 2 * h, 2 * w
    image = pixels((h, w), "float64", seed)
    found = imresize(image, scale)
    np.testing.assert_allclose(imresize(image[::-1], scale)[::-1], found, rtol=0, atol=1e-12)
    np.testing.assert_allclose(imresize(image[:, ::-1], scale)[:, ::-1], found, rtol=0, atol=1e-12)
    np.testing.assert_allclose(imresize(image.T, scale).T, found, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
def test_scale_one_is_the_image(dtype: str) -> None:
    image = pixels((6, 5, 3), dtype)
    near(imresize(image, 1), image)


def test_integers_saturate() -> None:
    """An edge overshoots on both sides; the result stops at the ends of the type."""
    step = np.zeros((4, 12), np.float64)
    step[:, 6:] = 255
    free = imresize(step, 2)
    assert free.min() < -5 and free.max() > 260
    stopped = imresize(step.astype(np.uint8), 2)
    assert stopped.min() == 0 and stopped.max() == 255
    np.testing.assert_array_equal(stopped, np.floor(np.clip(free, 0, 255) + 0.5).astype(np.uint8))


def test_halves_round_up() -> None:
    """Weights of ×1/2 are multiples of 1/128, so 0.5 is exact: MATLAB rounds it away from zero."""
    for low in (0, 1, 7, 200):
        image = np.full((1, 2), low, np.uint8)
        image[0, 1] += 1
        assert imresize(image, size=(1, 1))[0, 0] == low + 1


@pytest.mark.parametrize(
    ("side", "scale", "expected"),
    [(7, "1/2", 4), (100, "0.37", 37), (9, "1/3", 3), (10, "1/3", 4), (1, "1/4", 1), (5, "1.5", 8)],
)
def test_sizes_are_rounded_up(side: int, scale: str, expected: int) -> None:
    assert imresize(np.zeros((side, 1), np.uint8), exact_scale(scale)).shape[0] == expected
    assert imresize(np.zeros((1, side), np.uint8), float(Fraction(scale))).shape[1] == expected


def test_float32_is_computed_in_float32() -> None:
    image = pixels((20, 20), "float32")
    single, double = imresize(image, 1 / 3), imresize(image.astype(np.float64), 1 / 3)
    assert (single != double.astype(np.float32)).any()


# Scales and refusals ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_as", "meant"),
    [
        (1 / 3, Fraction(1, 3)),
        ("1/3", Fraction(1, 3)),
        (0.3333333333333333, Fraction(1, 3)),
        (0.37, Fraction(37, 100)),
        ("0.25", Fraction(1, 4)),
        (4, Fraction(4)),
        (np.float64(1.5), Fraction(3, 2)),
        (math.pi, Fraction(math.pi)),
    ],
)
def test_a_scale_means_what_it_looks_like(given_as: Any, meant: Fraction) -> None:
    assert exact_scale(given_as) == meant


@pytest.mark.parametrize(
    "bad", [0, -1, "-1/2", "1/0", "x", "", float("nan"), float("inf"), None, [2]]
)
def test_no_scale(bad: Any) -> None:
    with pytest.raises(ValueError, match="scale"):
        exact_scale(bad)


IMAGE = np.zeros((4, 4), np.uint8)


@pytest.mark.parametrize(
    ("image", "how", "says"),
    [
        (IMAGE, {}, "either a scale or a size"),
        (IMAGE, {"scale": 2, "size": (2, 2)}, "either a scale or a size"),
        (IMAGE, {"size": (0, 3)}, "not positive"),
        (IMAGE, {"size": (3, -1)}, "not positive"),
        (IMAGE, {"scale": 0}, "positive"),
        (IMAGE, {"scale": float("nan")}, "not a scale"),
        (IMAGE[0], {"scale": 2}, "shape"),
        (IMAGE[None, None], {"scale": 2}, "shape"),
        (IMAGE[:0], {"scale": 2}, "shape"),
        (IMAGE.astype(np.int16), {"scale": 2}, "int16"),
        (IMAGE.astype(np.float16), {"scale": 2}, "float16"),
        (IMAGE > 0, {"scale": 2}, "bool"),
    ],
)
def test_refusals(image: np.ndarray, how: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        imresize(image, **how)


# The official files -------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_set5_is_reproduced_to_the_byte(shared: Path, scale: int) -> None:
    seen = 0
    for file in images.list_images(shared / "data/Set5/HR"):
        name = f"LR_bicubic/X{scale}/{file.stem}x{scale}.png"
        official = images.read(shared / "data/Set5" / name)
        height, width = (side * scale for side in official.shape[:2])
        hr = images.read(file)[:height, :width]
        np.testing.assert_array_equal(imresize(hr, 1 / scale), official)
        seen += 1
    assert seen == 5


if __name__ == "__main__":
    write_fixture()
