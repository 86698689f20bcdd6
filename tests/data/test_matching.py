"""Names -> pairs in the layouts of GoPro, SIDD and RESIDE, and SIDD's blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from restore import images
from restore.data.blocks import BLOCK_FILES, write_blocks
from restore.data.matching import Matches, match, pairing_of
from restore.data.options import PairedImageDataset, SIDDBlocksDataset
from restore.data.sources import check_source, open_source
from restore.data.stores.store import Folder, Store
from restore.errors import DataError


def put(root: Path, *names: str, height: int = 8, width: int = 10) -> Path:
    image = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        images.write(root / name, image)
    return root


def options(pairing: str, gt: Path, lq: Path | None = None, **more: str) -> PairedImageDataset:
    values = {"dataroot_gt": str(gt), "dataroot_lq": str(lq or gt), "pairing": pairing}
    return PairedImageDataset(**{**values, **more})  # type: ignore


def found(chosen: PairedImageDataset) -> list[tuple[str, str, str]]:
    gt, lq, matches = matched(chosen)
    places = zip(matches.names, matches.lq, matches.gt, strict=True)
    return [(name, lq.names[at_lq], gt.names[at_gt]) for name, at_lq, at_gt in places]


def matched(chosen: PairedImageDataset) -> tuple[Store, Store, Matches]:
    deep = pairing_of(chosen).recursive or chosen.meta_info_file is not None
    gt = Folder(chosen.dataroot_gt, recursive=deep)
    lq = Folder(chosen.dataroot_lq, recursive=pairing_of(chosen).recursive)
    return gt, lq, match(chosen, gt, lq)


def refusal(chosen: PairedImageDataset, code: str) -> str:
    with pytest.raises(DataError, match=rf"error\[{code}\]") as caught:
        matched(chosen)
    return str(caught.value)


# gopro --------------------------------------------------------------------------------------------

GOPRO = ("GOPR0372_07_00", "GOPR0384_11.02")


@pytest.fixture
def gopro(tmp_path: Path) -> Path:
    return put(
        tmp_path / "train",
        *(
            f"{scene}/{kind}/00000{number}.png"
            for scene in GOPRO
            for kind in ("blur", "blur_gamma", "sharp")
            for number in (1, 2)
        ),
    )


def test_gopro(gopro: Path) -> None:
    assert found(options("gopro", gopro)) == [
        (f"{s}-00000{n}", f"{s}/blur/00000{n}.png", f"{s}/sharp/00000{n}.png")
        for s in GOPRO
        for n in (1, 2)
    ]


def test_gopro_from_two_folders(tmp_path: Path) -> None:
    put(tmp_path / "in", "s/blur/1.png", "s/blur/2.jpg")
    put(tmp_path / "out", "s/sharp/1.png", "s/sharp/2.png")
    pairs = found(options("gopro", tmp_path / "out", tmp_path / "in"))
    assert [name for name, _, _ in pairs] == ["s-1", "s-2"]


def test_gopro_lone_files(gopro: Path) -> None:
    (gopro / f"{GOPRO[0]}/sharp/000002.png").unlink()
    (gopro / f"{GOPRO[1]}/blur/000001.png").unlink()
    text = refusal(options("gopro", gopro), "DAT05")
    assert f"got {GOPRO[0]}/blur/000002.png without GT, {GOPRO[1]}/sharp/000001.png" in text
    assert "check pairing" in text


def test_gopro_never_takes_train_and_test_together(gopro: Path) -> None:
    put(gopro.parent / "test", "GOPR0384_11_00/blur/000001.png", "GOPR0384_11_00/sharp/000001.png")
    text = refusal(options("gopro", gopro.parent), "DAT03")
    assert "14 images, none named so" in text and "SEQ/sharp/000001.png" in text


def test_gopro_listed(gopro: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{GOPRO[1]}/sharp/000002.png\n")
    chosen = options("gopro", gopro, meta_info_file=str(tmp_path / "list.txt"))
    assert [name for name, _, _ in found(chosen)] == [f"{GOPRO[1]}-000002"]


# sidd ---------------------------------------------------------------------------------------------

SCENES = ("0001_001_S6_00100_00060_3200_L", "0002.5_GT_SRGB_NOISY")  # the second is made to mislead


@pytest.fixture
def sidd(tmp_path: Path) -> Path:
    return put(
        tmp_path / "Data",
        *(
            f"{scene}/000{number}_{kind}_SRGB_{shot}.PNG"
            for number, scene in enumerate(SCENES, start=1)
            for kind in ("GT", "NOISY")
            for shot in ("010", "011")
        ),
    )


def test_sidd(sidd: Path) -> None:
    assert found(options("sidd", sidd)) == [
        (f"000{n}_NOISY_SRGB_{k}", f"{s}/000{n}_NOISY_SRGB_{k}.PNG", f"{s}/000{n}_GT_SRGB_{k}.PNG")
        for n, s in enumerate(SCENES, start=1)
        for k in ("010", "011")
    ]
    assert len(found(options("sidd", sidd.parent))) == 4  # SIDD_Medium_Srgb itself will do


def test_sidd_a_missing_file_shifts_nothing(sidd: Path) -> None:
    (sidd / SCENES[0] / "0001_GT_SRGB_010.PNG").unlink()
    (sidd / SCENES[1] / "0002_NOISY_SRGB_011.PNG").unlink()
    text = refusal(options("sidd", sidd), "DAT05")
    assert f"got {SCENES[0]}/0001_NOISY_SRGB_010.PNG without GT" in text
    assert f"{SCENES[1]}/0002_GT_SRGB_011.PNG without LQ" in text


def test_sidd_one_name_in_two_scenes(sidd: Path) -> None:
    put(sidd, "other/0001_GT_SRGB_010.PNG", "other/0001_NOISY_SRGB_010.PNG")
    assert "0001_NOISY_SRGB_010.PNG" in refusal(options("sidd", sidd), "DAT15")


# reside -------------------------------------------------------------------------------------------


@pytest.fixture
def reside(tmp_path: Path) -> Path:
    put(tmp_path / "clear_hazy_gt/clear", "1.png", "25.jpg")  # an awkward parent's name
    hazy = ("1_1_0.90179.png", "1_2_1.2.png", "25_0.85_0.04.jpg")
    put(tmp_path / "clear_hazy_gt/hazy", *hazy)
    return tmp_path / "clear_hazy_gt"


def test_reside(reside: Path) -> None:
    chosen = options("reside", reside / "clear", reside / "hazy")
    assert found(chosen) == [
        ("1_1_0.90179", "1_1_0.90179.png", "1.png"),
        ("1_2_1.2", "1_2_1.2.png", "1.png"),
        ("25_0.85_0.04", "25_0.85_0.04.jpg", "25.jpg"),
    ]


def test_reside_lone_files(reside: Path) -> None:
    put(reside, "clear/3.png", "clear/4_a.png", "hazy/2_1.png", "hazy/4_1.png")
    text = refusal(options("reside", reside / "clear", reside / "hazy"), "DAT05")
    assert "got 2_1.png, 4_1.png without GT, 3.png, 4_a.png without LQ" in text


def test_reside_list_of_clear_images(reside: Path) -> None:
    put(reside, "clear/3.png", "hazy/9_1.png")
    (reside / "list.txt").write_text("25.jpg\n")
    chosen = options(
        "reside", reside / "clear", reside / "hazy", meta_info_file=str(reside / "list.txt")
    )
    assert [name for name, _, _ in found(chosen)] == ["25_0.85_0.04"]


@pytest.mark.parametrize("training", [False, True])
def test_reside_cuts_the_middle_of_clear(tmp_path: Path, training: bool) -> None:
    put(tmp_path / "hazy", "1400_1.png", height=12, width=14)
    put(tmp_path / "gt", "1400.png", height=32, width=34)
    chosen = options("reside", tmp_path / "gt", tmp_path / "hazy")
    source = open_source(chosen, 1, channels=3, training=training)
    gt = source[0].gt
    whole = images.read(tmp_path / "gt/1400.png")
    assert gt is not None and np.array_equal(gt, whole[10:-10, 10:-10])
    assert source.check(0) == (12, 14)


@pytest.mark.parametrize("height, width", [(13, 14), (34, 34), (10, 14)])
def test_reside_other_sizes_do_not_fit(tmp_path: Path, height: int, width: int) -> None:
    put(tmp_path / "hazy", "1_1.png", height=12, width=14)
    put(tmp_path / "gt", "1.png", height=height, width=width)
    source = open_source(
        options("reside", tmp_path / "gt", tmp_path / "hazy"), 1, channels=3, training=False
    )
    with pytest.raises(DataError, match="DAT06"):
        check_source(source)
    with pytest.raises(DataError, match="DAT06"):
        source[0]


# all ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairing", ["gopro", "sidd", "reside"])
def test_a_folder_of_another_layout(tmp_path: Path, pairing: str) -> None:
    put(tmp_path, "a_1.png", "b_1.png")
    refusal(options(pairing, tmp_path), "DAT05" if pairing == "reside" else "DAT03")


def test_template_with_dots_and_underscores(tmp_path: Path) -> None:
    stems = ("109fromGOPR1096.MP4", "box2", "a_b.c")
    put(tmp_path / "gt", *(f"{stem}.png" for stem in stems))
    put(tmp_path / "lq", *(f"{stem}x2.PNG" for stem in stems))
    chosen = options("template", tmp_path / "gt", tmp_path / "lq", filename_tmpl="{}x2")
    assert sorted(name for name, _, _ in found(chosen)) == sorted(stems)


def test_pairing_and_template_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        options("sidd", tmp_path, filename_tmpl="{}x2")


# blocks -------------------------------------------------------------------------------------------


@pytest.fixture
def blocks(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    noisy, clean = rng.integers(0, 256, (2, 2, 3, 8, 9, 3), dtype=np.uint8)
    for name, array in zip(BLOCK_FILES, (noisy, clean), strict=True):
        write_blocks(tmp_path / name, array)
    return tmp_path, noisy, clean


def opened_blocks(folder: Path, channels: int = 3):
    return open_source(
        SIDDBlocksDataset(dataroot=str(folder)), 1, channels=channels, training=False
    )


def test_blocks(blocks: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder, noisy, clean = blocks
    source = opened_blocks(folder)
    check_source(source)
    names = ["0001_01", "0001_02", "0001_03", "0002_01", "0002_02", "0002_03"]
    assert [source.name(i) for i in range(len(source))] == names
    for index in range(6):
        pair = source[index]
        assert pair.gt is not None and pair.lq.flags.c_contiguous
        assert np.array_equal(pair.lq, noisy[index // 3, index % 3])
        assert np.array_equal(pair.gt, clean[index // 3, index % 3])


def test_blocks_are_the_same_bytes_at_any_time(
    blocks: tuple[Path, np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, noisy, _ = blocks
    monkeypatch.setattr("time.asctime", lambda *_: "another day")
    (folder / "again").mkdir()
    write_blocks(folder / "again" / BLOCK_FILES[0], noisy)
    again, before = (f / BLOCK_FILES[0] for f in (folder / "again", folder))
    assert again.read_bytes() == before.read_bytes()


def test_blocks_refused(blocks: tuple[Path, np.ndarray, np.ndarray]) -> None:
    folder, noisy, _ = blocks
    with pytest.raises(DataError, match="IMG05"):
        opened_blocks(folder, channels=1)
    clean = folder / BLOCK_FILES[1]
    whole = clean.read_bytes()
    for length in (0, 3, 100, 200, len(whole) // 2, len(whole) - 1):
        clean.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"error\[DAT18\]") as caught:
            check_source(opened_blocks(folder))
        assert str(clean) in str(caught.value)
    write_blocks(clean, noisy[:, :2])
    with pytest.raises(DataError, match="DAT06"):
        opened_blocks(folder)
    write_blocks(folder / "Other.mat", noisy)
    clean.write_bytes((folder / "Other.mat").read_bytes())
    with pytest.raises(DataError, match=r"DAT18.*got Other; expected ValidationGtBlocksSrgb"):
        opened_blocks(folder)
    clean.unlink()
    with pytest.raises(DataError, match=r"error\[DAT02\]"):
        opened_blocks(folder)
