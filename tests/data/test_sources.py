"""Folders -> pairs: matched by name, refused with the names that do not match."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from restore import images
from restore.data.augment import Draw, sample_words
from restore.data.degradations.bayer_mosaic import BayerMosaic
from restore.data.options import (
    BayerMosaicOptions,
    BicubicDownOptions,
    DegradedImageDataset,
    GaussianNoiseOptions,
    JpegOptions,
    MotionBlurOptions,
    PairedImageDataset,
    SingleImageDataset,
)
from restore.data.source import Cached, Extended
from restore.data.sources import check_source, open_source
from restore.errors import DataError, OptionError
from restore.ops.resize import imresize
from restore.section import Section


def draw(file: Path, height: int, width: int, seed: int = 0) -> np.ndarray:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    images.write(file, image)
    return image


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    for number in (1, 2):
        draw(tmp_path / f"gt/a{number}.png", 24, 32, number)
        draw(tmp_path / f"lq/a{number}x2.png", 12, 16, number + 10)
    return tmp_path


def paired(root: Path, **more: str) -> PairedImageDataset:
    values = {"dataroot_gt": str(root / "gt"), "dataroot_lq": str(root / "lq")}
    return PairedImageDataset(**{"filename_tmpl": "{}x2", **values, **more})  # type: ignore


def opened(options: Section, scale: int = 2, channels: int = 3, training: bool = False):
    return open_source(options, scale, channels=channels, training=training)


def test_pairs_by_template(pairs: Path) -> None:
    source = opened(paired(pairs))
    assert len(source) == 2 and [source.name(i) for i in range(2)] == ["a1", "a2"]
    pair = source[1]
    assert pair.gt is not None and pair.gt.shape == (24, 32, 3) and pair.lq.shape == (12, 16, 3)
    assert [f.name for f in source.files(1)] == ["a2x2.png", "a2.png"]


def test_lone_files_are_named(pairs: Path) -> None:
    draw(pairs / "lq/zx2.png", 12, 16)
    draw(pairs / "gt/b.png", 24, 32)
    with pytest.raises(DataError) as caught:
        opened(paired(pairs))
    assert str(caught.value) == (
        f"error[DAT05]: LQ and GT do not pair ({pairs}/lq and {pairs}/gt): got zx2.png without "
        "GT, b.png without LQ; expected for every GT 'name' an LQ 'namex2'; "
        "fix: check filename_tmpl, or add or remove these files"
    )


def test_wrong_scale_shows_both_sizes(pairs: Path) -> None:
    source = opened(paired(pairs), scale=4)
    with pytest.raises(DataError) as caught:
        source[0]
    assert str(caught.value) == (
        f"error[DAT06]: LQ and GT sizes do not fit the scale ({pairs}/lq/a1x2.png and "
        f"{pairs}/gt/a1.png): got LQ 16×12 and GT 32×24; expected GT 64×48 (scale 4); "
        "fix: check scale, dataroot_lq and filename_tmpl"
    )


def test_wrong_scale_is_found_before_decoding(pairs: Path) -> None:
    with pytest.raises(DataError, match=r"error\[DAT06\]"):
        check_source(opened(paired(pairs), scale=3))


def test_gt_not_cut_to_a_multiple(tmp_path: Path) -> None:
    gt = draw(tmp_path / "gt/a.png", 25, 33)
    draw(tmp_path / "lq/ax2.png", 12, 16)
    found = opened(paired(tmp_path))[0].gt
    assert found is not None and np.array_equal(found, gt[:24, :32])
    with pytest.raises(DataError, match="DAT06"):  # training data must fit exactly
        opened(paired(tmp_path), training=True)[0]


@pytest.mark.parametrize("side", ["gt", "lq"])
def test_missing_and_empty_folders(pairs: Path, side: str) -> None:
    folder = pairs / side
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(DataError, match=r"error\[DAT03\].*" + side):
        opened(paired(pairs))
    folder.rmdir()
    with pytest.raises(DataError, match=r"error\[DAT02\].*" + side):
        opened(paired(pairs))


def test_two_files_of_one_name(pairs: Path) -> None:
    draw(pairs / "gt/a1.bmp", 24, 32)
    with pytest.raises(DataError, match=r"error\[DAT15\]: two images of one name"):
        opened(paired(pairs))


def test_meta_info_file(pairs: Path) -> None:
    meta = pairs / "meta.txt"
    meta.write_text("a2.png (24,32,3) 1\n\n")
    assert [opened(paired(pairs, meta_info_file=str(meta))).name(0)] == ["a2"]
    for text, code in (("../../etc/passwd\n", "DAT01"), ("c.png\n", "DAT02"), ("\n", "DAT03")):
        meta.write_text(text)
        with pytest.raises(DataError, match=code):
            opened(paired(pairs, meta_info_file=str(meta)))


def test_damaged_files_are_found_up_front(pairs: Path) -> None:
    file = pairs / "gt/a2.png"
    whole = file.read_bytes()
    source = opened(paired(pairs))
    for damaged, code in ((b"", "IMG01"), (b"hello, I am text", "IMG02"), (whole[:-30], "IMG03")):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=code) as caught:
            check_source(source)
        assert str(file) in str(caught.value)


def test_degraded_on_the_fly(tmp_path: Path) -> None:
    gt = draw(tmp_path / "gt/a.png", 25, 31)
    source = opened(DegradedImageDataset(dataroot_gt=str(tmp_path / "gt")), scale=3)
    pair = source[0]
    assert pair.gt is not None and np.array_equal(pair.gt, gt[:24, :30])
    assert np.array_equal(pair.lq, imresize(gt[:24, :30], 1 / 3))
    check_source(source)


def test_single_folder_has_no_target(tmp_path: Path) -> None:
    draw(tmp_path / "lq/a.png", 9, 9)
    assert opened(SingleImageDataset(dataroot_lq=str(tmp_path / "lq")))[0].gt is None


def test_gray_images_follow_the_network(tmp_path: Path) -> None:
    (tmp_path / "lq").mkdir()
    images.write(tmp_path / "lq/a.png", np.full((9, 9), 7, np.uint8))
    options = SingleImageDataset(dataroot_lq=str(tmp_path / "lq"))
    assert opened(options, channels=3)[0].lq.shape == (9, 9, 3)
    assert opened(options, channels=1)[0].lq.shape == (9, 9)


def test_cache_keeps_to_its_limit(pairs: Path) -> None:
    source = opened(paired(pairs))
    one = source[0].nbytes
    cached = Cached(source, one)
    assert cached[0] is cached[0]
    assert cached[1] is not cached[1]
    assert cached.sample(0, np.random.default_rng(0)) is cached[0]


def test_a_source_over_another_draws_as_that_does(tmp_path: Path) -> None:
    draw(tmp_path / "gt/a.png", 24, 31)
    source = opened(noisy(tmp_path), scale=1)
    ours, theirs = (s.sample(0, np.random.default_rng(1)).lq for s in (Extended(source), source))
    assert np.array_equal(ours, theirs) and not np.array_equal(ours, source[0].lq)


def noisy(root: Path, **more: int) -> DegradedImageDataset:
    values = {"dataroot_gt": str(root / "gt"), "degradation": GaussianNoiseOptions(sigma=25)}
    return DegradedImageDataset(**{**values, **more})  # type: ignore


@pytest.mark.parametrize("cache", [0, 1])
def test_a_sample_is_degraded_anew_and_an_item_never(tmp_path: Path, cache: int) -> None:
    gt = draw(tmp_path / "gt/a.png", 24, 31)
    draw(tmp_path / "gt/b.png", 24, 31)  # the same pixels under another name
    source = opened(noisy(tmp_path, ram_cache_mib=cache), scale=1)
    for again in range(2):
        one, same, other = (source.sample(0, np.random.default_rng(s)) for s in (1, 1, 2))
        for pair in (one, same, other, source[0]):
            assert pair.gt is not None and np.array_equal(pair.gt, gt)
        assert np.array_equal(one.lq, same.lq) and not np.array_equal(one.lq, other.lq)
        assert np.array_equal(source[0].lq, source[0].lq), again
        assert not np.array_equal(source[0].lq, source[1].lq)
    fresh = opened(noisy(tmp_path), scale=1)
    assert np.array_equal(source[0].lq, fresh[0].lq)


def test_the_draw_of_an_item_is_its_file_names(tmp_path: Path) -> None:
    draw(tmp_path / "one/gt/b.png", 24, 31)
    draw(tmp_path / "two/gt/a.png", 24, 31)
    draw(tmp_path / "two/gt/b.png", 24, 31)
    one, two = (opened(noisy(tmp_path / name), scale=1) for name in ("one", "two"))
    assert np.array_equal(one[0].lq, two[1].lq)  # whatever its position and its neighbours


def test_the_cache_keeps_the_decoded_file(tmp_path: Path) -> None:
    draw(tmp_path / "gt/a.png", 24, 31)
    source = opened(noisy(tmp_path, ram_cache_mib=1), scale=1)
    gt = source[0].gt
    (tmp_path / "gt/a.png").unlink()
    assert gt is not None and np.array_equal(gt, source.sample(0, np.random.default_rng(0)).gt)


def test_what_draws_nothing_samples_its_items(pairs: Path) -> None:
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    shrunk = DegradedImageDataset(dataroot_gt=str(pairs / "gt"), ram_cache_mib=1)
    for source in (opened(paired(pairs)), Cached(opened(paired(pairs)), 1 << 20), opened(shrunk)):
        assert np.array_equal(source.sample(1, rng).lq, source[1].lq)
        assert rng.bit_generator.state == before
    assert opened(shrunk)[0] is not opened(shrunk)[0]
    cached = opened(shrunk)
    assert cached[0] is cached[0]


@pytest.mark.parametrize(
    ("degradation", "scale", "words"),
    [
        (MotionBlurOptions(), 2, ("MotionBlur keeps the image's size", "got scale 2", "scale 1;")),
        (GaussianNoiseOptions(sigma=5), 4, ("GaussianNoise", "fix: use BicubicDown")),
        (BicubicDownOptions(), 1, ("BicubicDown changes nothing", "MotionBlur, SensorNoise, Haze")),
    ],
)
def test_a_degradation_that_does_not_suit_the_scale(
    tmp_path: Path, degradation: Section, scale: int, words: tuple[str, ...]
) -> None:
    draw(tmp_path / "gt/a.png", 24, 31)
    options = DegradedImageDataset(dataroot_gt=str(tmp_path / "gt"), degradation=degradation)
    with pytest.raises(OptionError, match=r"error\[OPT36\]") as caught:
        opened(options, scale=scale)
    assert all(word in str(caught.value) for word in words)


class Negative(Section):
    """A degradation from outside, as a user writes it."""

    type: str = "my_package:Negative"

    def build(self, scale: int):
        return lambda image, rng: 255 - image


def test_a_degradation_from_outside(tmp_path: Path) -> None:
    gt = draw(tmp_path / "gt/a.png", 24, 31)
    options = DegradedImageDataset(dataroot_gt=str(tmp_path / "gt"), degradation=Negative())
    assert np.array_equal(opened(options, scale=1)[0].lq, 255 - gt)


# gray sets and patches ----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["rgb2gray", "rgb2ycbcr"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_gray_of_colour(rule: images.GrayRule, dtype: type) -> None:
    colour = np.random.default_rng(1).integers(0, np.iinfo(dtype).max, (9, 8, 3)).astype(dtype)
    wide = colour / (np.iinfo(dtype).max / 255)
    weights, low = {
        "rgb2gray": ((0.299, 0.587, 0.114), 0),
        "rgb2ycbcr": (np.array((65.481, 128.553, 24.966)) / 255, 16),
    }[rule]
    gray = images.as_gray(colour, rule)
    assert gray.shape == (9, 8) and gray.dtype == dtype
    unit = np.iinfo(dtype).max / 255
    error = np.abs(gray - (wide @ weights + low) * unit).max()
    assert error <= (0.51 if dtype == np.uint8 else 1.5)  # OpenCV's weights have 14 bits
    white, black = (np.full((2, 2, 3), v, dtype) for v in (np.iinfo(dtype).max, 0))
    ends = [int(images.as_gray(image, rule)[0, 0] / unit) for image in (black, white)]
    assert ends == ([0, 255] if rule == "rgb2gray" else [16, 235])
    assert images.as_gray(gray, rule) is gray


def test_a_gray_set_of_colour_files(tmp_path: Path) -> None:
    colour = draw(tmp_path / "gt/a.png", 24, 32)
    images.write(tmp_path / "gt/b.png", colour[..., 0])
    options = DegradedImageDataset(
        dataroot_gt=str(tmp_path / "gt"), degradation=JpegOptions(quality=30), gray="rgb2ycbcr"
    )
    source = opened(options, scale=1, channels=1)
    check_source(source)
    pairs = [source[0], source[1]]
    for pair, gt in zip(pairs, (images.as_gray(colour, "rgb2ycbcr"), colour[..., 0]), strict=True):
        assert pair.gt is not None and np.array_equal(pair.gt, gt)
        assert pair.lq.shape == gt.shape and not np.array_equal(pair.lq, gt)
    plain = DegradedImageDataset(dataroot_gt=str(tmp_path / "gt"), degradation=options.degradation)
    with pytest.raises(DataError, match="IMG05"):
        check_source(opened(plain, scale=1, channels=1))


def drawn(seed: int, size: int) -> Draw:
    """What chance decides of sample 0 under a seed."""
    words = sample_words(seed, np.array([0]), np.array([0])).tolist()[0]
    return Draw((seed, 0, 0), words, size)


def test_mosaic_of_a_patch_begins_at_the_corner_of_what_is_trained(tmp_path: Path) -> None:
    draw(tmp_path / "gt/a.png", 25, 31)
    options = DegradedImageDataset(
        dataroot_gt=str(tmp_path / "gt"), degradation=BayerMosaicOptions()
    )
    source = opened(options, scale=1, training=True)
    for seed in range(12):
        choice = drawn(seed, 16)
        pair, turn = source.part(0, choice), choice.turn()
        assert pair.gt is not None
        lq, gt = turn.turned(pair.lq), turn.turned(pair.gt)
        assert np.array_equal(lq, BayerMosaic()(gt, np.random.default_rng()))


def test_noise_of_a_patch_is_its_own(tmp_path: Path) -> None:
    draw(tmp_path / "gt/a.png", 64, 64)
    source = opened(noisy(tmp_path), scale=1, training=True)
    one, same, other = (source.part(0, drawn(seed, 48)) for seed in (1, 1, 2))
    assert one.gt is not None and same.gt is not None
    assert np.array_equal(one.lq, same.lq) and np.array_equal(one.gt, same.gt)
    assert not np.array_equal(one.lq, other.lq)
    inside = (one.gt > 70) & (one.gt < 185)  # where nothing clips
    error = one.lq.astype(int)[inside] - one.gt[inside]
    assert abs(error.mean()) < 2 and abs(error.std() - 25) < 2


def test_other_degradations_see_the_whole_image(tmp_path: Path) -> None:
    draw(tmp_path / "gt/a.png", 64, 64)
    options = DegradedImageDataset(
        dataroot_gt=str(tmp_path / "gt"), degradation=JpegOptions(quality=10)
    )
    source = opened(options, scale=1, training=True)
    whole = source[0]
    for seed in range(4):
        choice = drawn(seed, 24)
        pair, wanted = source.part(0, choice), whole.part(choice.box("a", 64, 64, 1))
        assert pair.gt is not None and wanted.gt is not None
        assert np.array_equal(pair.lq, wanted.lq) and np.array_equal(pair.gt, wanted.gt)
