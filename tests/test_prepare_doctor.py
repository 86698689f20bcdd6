"""`restore prepare doctor SET`: sound trees are sound, and every defect is found and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from prepare_trees import Command, picture, place, put, refused

from restore import images
from restore.commands.main import main
from restore.data.blocks import BLOCK_FILES, write_blocks
from restore.data.degradations.motion_blur import MotionBlur
from restore.data.prepare.table import SETS
from restore.ops.resize import imresize

SET5 = ("baby", "bird", "butterfly", "head", "woman")


@pytest.fixture
def prepare(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Set5 and a little DIV2K and GoPro, prepared once."""
    root = tmp_path_factory.mktemp("made")
    put(root / "down", [f"Set5/{name}.png" for name in SET5], 50, 62)
    put(root / "down", [f"DIV2K_train_HR/{n:04d}.png" for n in (1, 2, 3)], 60, 84)
    put(root / "down", [f"DIV2K_valid_HR/{n:04d}.png" for n in (801, 802)], 60, 84)
    for half, seq in (("train", "GOPR0372_07_00"), ("test", "GOPR0384_11_00")):
        for n in (1, 2):
            sharp = picture(f"{half}{n}", 720, 1280)
            place(root / f"down/{half}/{seq}/sharp/00000{n}.png", sharp)
            place(root / f"down/{half}/{seq}/blur/00000{n}.png", cv2.blur(sharp, (9, 9)))
    for name in ("set5", "div2k", "gopro"):
        assert (
            main(["prepare", name, "--source", str(root / "down"), "--out", str(root / name)]) == 0
        )
    return root


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A prepared set to be spoilt."""

    def copied(name: str) -> Path:
        return Path(shutil.copytree(made / name, tmp_path / name))

    return copied


def sound(prepare: Command, *words: object) -> str:
    answer = prepare("doctor", *words)
    assert answer.code == 0 and answer.out.endswith("verdict: sound\n"), answer.out
    return answer.out


def faults(prepare: Command, *words: object) -> list[str]:
    """The faulty lines of the table; exit code and verdict agree with them."""
    answer = prepare("doctor", *words)
    lines = [line for line in answer.out.splitlines() if "  FAULT  " in line]
    plural = "" if len(lines) == 1 else "s"
    assert answer.code == 1 and lines, answer
    assert answer.out.endswith(f"verdict: {len(lines)} fault{plural}\n"), answer.out
    return lines


def test_a_whole_set_is_sound(prepare: Command, made: Path) -> None:
    said = sound(prepare, "set5", "--out", made / "set5")
    assert said.count("5: MATLAB's bicubic, to the byte") == 3
    assert "--partial" not in said


def test_the_real_set5_is_sound(prepare: Command, shared: Path) -> None:
    said = sound(prepare, "set5", "--out", shared / "data/Set5")
    assert said.count("5: MATLAB's bicubic, to the byte") == 3


def test_a_part_of_a_set_is_sound_when_that_is_meant(prepare: Command, made: Path) -> None:
    for name in ("div2k", "gopro"):
        said = sound(prepare, name, "--out", made / name, "--partial")
        assert "absent" in said
        (line, *_) = faults(prepare, name, "--out", made / name)
        assert line.startswith("count") and {"div2k": "800", "gopro": "2103"}[name] in line


def test_one_image_too_many(prepare: Command, copy: Callable[[str], Path]) -> None:
    root = copy("set5")
    put(root, ["HR/sixth.png"], 50, 62)
    found = faults(prepare, "set5", "--out", root, "--partial")
    assert any(line.split()[:4] == ["count", "FAULT", "HR", "6"] for line in found)
    assert sum(line.startswith("pairs") and "sixth.png without LQ" in line for line in found) == 3


def test_no_partner(prepare: Command, copy: Callable[[str], Path]) -> None:
    root = copy("set5")
    (root / "LR_bicubic/X3/headx3.png").rename(root / "LR_bicubic/X3/headX3.png")
    found = [line for line in faults(prepare, "set5", "--out", root) if line.startswith("pairs")]
    assert len(found) == 1 and "headX3.png" in found[0] and "head.png" in found[0]


def test_a_folder_without_its_partner(prepare: Command, copy: Callable[[str], Path]) -> None:
    root = copy("set5")
    shutil.rmtree(root / "HR")
    found = [line for line in faults(prepare, "set5", "--out", root) if line.startswith("pairs")]
    assert len(found) == 3 and all("no partners" in line for line in found)


@pytest.mark.parametrize("spoil", ["cut", "empty", "text"])
def test_unreadable(prepare: Command, copy: Callable[[str], Path], spoil: str) -> None:
    root = copy("set5")
    file = root / "HR/bird.png"
    data = file.read_bytes()
    file.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "text": b"<html>no"}[spoil])
    found = faults(prepare, "set5", "--out", root)
    code = {"cut": "IMG03", "empty": "IMG01", "text": "IMG02"}[spoil]
    assert any(
        line.startswith("readable") and "HR/bird.png" in line and code in line for line in found
    )
    assert any(line.startswith("manifest") and "changed" in line for line in found)


def test_scale(prepare: Command, copy: Callable[[str], Path]) -> None:
    root = copy("set5")
    place(root / "LR_bicubic/X2/birdx2.png", picture("bird", 20, 30))
    found = [line for line in faults(prepare, "set5", "--out", root) if line.startswith("scale")]
    assert len(found) == 1 and "bird: LQ 30×20 and GT 62×50" in found[0]


def test_hr_to_train_on_must_fit_exactly(prepare: Command, tmp_path: Path) -> None:
    """A test set's HR may have a row too many; training refuses it, so the doctor does."""
    place(tmp_path / "DIV2K_train_HR/0001.png", picture("odd", 49, 60))
    words = ("--source", tmp_path, "--scales", 2, "--out", tmp_path / "out")
    assert prepare("div2k", *words).code == 0
    (line,) = faults(prepare, "div2k", "--out", tmp_path / "out", "--partial")
    assert line.startswith("scale") and "0001" in line and "to the pixel" in line


def test_depth(prepare: Command, copy: Callable[[str], Path]) -> None:
    root = copy("set5")
    deep = images.read(root / "HR/bird.png").astype(np.uint16) * 257
    images.write(root / "HR/bird.png", deep)
    found = [line for line in faults(prepare, "set5", "--out", root) if line.startswith("depth")]
    assert len(found) == 1 and "1 of 16 bit" in found[0]


def test_sizes(prepare: Command, copy: Callable[[str], Path]) -> None:
    root = copy("gopro")
    place(root / "test/GOPR0384_11_00/sharp/000002.png", picture("x", 360, 640))
    found = faults(prepare, "gopro", "--out", root, "--partial")
    assert any(
        line.startswith("size") and "1280x720" in line and "000002" in line for line in found
    )


RESIZERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "cubic": lambda hr: np.asarray(cv2.resize(hr, (15, 12), interpolation=cv2.INTER_CUBIC)),
    "area": lambda hr: np.asarray(cv2.resize(hr, (15, 12), interpolation=cv2.INTER_AREA)),
    "clamp": lambda hr: imresize(hr, 1 / 4, edge="clamp"),
    "once": lambda hr: imresize(hr, 1 / 4, round_between_passes=False),
}


@pytest.mark.parametrize("resizer", list(RESIZERS))
def test_what_made_the_lr(prepare: Command, copy: Callable[[str], Path], resizer: str) -> None:
    root = copy("set5")
    for name in SET5:
        hr = images.read(root / f"HR/{name}.png")[:48, :60]
        images.write(root / f"LR_bicubic/X4/{name}x4.png", RESIZERS[resizer](hr))
    (root / "MANIFEST.json").unlink()
    if resizer in ("clamp", "once"):
        said = sound(prepare, "set5", "--out", root)
        assert {"clamp": "up to 2014", "once": "rounded once"}[resizer] in said
    else:
        (line,) = faults(prepare, "set5", "--out", root)
        assert line.startswith("bicubic") and "LR_bicubic/X4" in line and "dB" in line


def test_images_in_train_and_test(prepare: Command, copy: Callable[[str], Path]) -> None:
    """The same file, and the same picture as JPEG, brighter and a few pixels smaller."""
    root = copy("div2k")
    for scale in (2, 3, 4):
        shutil.rmtree(root / f"DIV2K_train_LR_bicubic/X{scale}")
        shutil.rmtree(root / f"DIV2K_valid_LR_bicubic/X{scale}")
    (root / "MANIFEST.json").unlink()
    shutil.copy(root / "DIV2K_valid_HR/0801.png", root / "DIV2K_train_HR/0004.png")
    again = images.read(root / "DIV2K_valid_HR/0802.png")[1:-1, 1:-1]
    images.write(
        root / "DIV2K_train_HR/0005.jpg", np.clip(again * 0.9 + 12, 0, 255).astype(np.uint8)
    )
    same, alike = faults(prepare, "div2k", "--out", root, "--partial")
    assert "the same pixels" in same
    assert "1: DIV2K_train_HR/0004.png = DIV2K_valid_HR/0801.png" in same
    assert "the same picture" in alike
    assert "1: DIV2K_train_HR/0005.jpg = DIV2K_valid_HR/0802.png" in alike


def test_plain_images_are_no_duplicates(prepare: Command, tmp_path: Path) -> None:
    """Two skies of other noise."""
    rng = np.random.default_rng(0)
    for file in ("DIV2K_train_HR/0001.png", "DIV2K_valid_HR/0801.png"):
        place(tmp_path / file, rng.integers(199, 202, (48, 48, 3), dtype=np.uint8))
    sound(prepare, "div2k", "--out", tmp_path, "--partial")


def test_files_that_changed_or_went(prepare: Command, copy: Callable[[str], Path]) -> None:
    root = copy("div2k")
    (root / "DIV2K_valid_HR/0802.png").unlink()
    for scale in (2, 3, 4):
        (root / f"DIV2K_valid_LR_bicubic/X{scale}/0802x{scale}.png").unlink()
    images.write(root / "DIV2K_train_HR/0001.png", picture("other", 60, 84))
    found = faults(prepare, "div2k", "--out", root, "--partial")
    manifest = [line for line in found if line.startswith("manifest")]
    assert "0802.png" in manifest[0] and "(4 in all)" in manifest[0]
    assert "DIV2K_train_HR/0001.png" in manifest[1]
    assert any(line.startswith("bicubic") and "not of 0001" in line for line in found)


def test_a_run_that_was_cut_off(prepare: Command, copy: Callable[[str], Path]) -> None:
    root = copy("set5")
    (root / ".prepare").mkdir()
    (line,) = faults(prepare, "set5", "--out", root)
    assert "cut off" in line


# Versions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gamma", "chosen"), [(1.0, "blur"), (2.2, "blur_gamma"), (2.2, "blur")])
def test_which_gopro(prepare: Command, tmp_path: Path, gamma: float, chosen: str) -> None:
    """Told from the light; and a fault when another was asked for."""
    seq, blur = "GOPR0384_11_00", MotionBlur(path_length=(12.0, 12.0), gamma=gamma)
    for n in range(2):
        sharp = np.where(np.random.default_rng(n).random((90, 160, 1)) < 0.5, 20, 230)
        sharp = cv2.resize(sharp.astype(np.uint8), (1280, 720), interpolation=cv2.INTER_NEAREST)
        sharp = cv2.cvtColor(sharp, cv2.COLOR_GRAY2RGB)
        place(tmp_path / f"down/test/{seq}/sharp/{n:06d}.png", sharp)
        blurred = blur(sharp, np.random.default_rng(n))
        place(tmp_path / f"down/test/{seq}/{chosen}/{n:06d}.png", blurred)
    out = tmp_path / "out"
    words = ("gopro", "--source", tmp_path / "down", "--variant", chosen, "--out", out)
    assert prepare(*words).code == 0
    truth = "blur_gamma" if gamma == 2.2 else "blur"
    if truth == chosen:
        assert f"looks like {truth} (" in sound(prepare, "gopro", "--out", out, "--partial")
    else:
        (line,) = faults(prepare, "gopro", "--out", out, "--partial")
        assert f"looks like {truth} (" in line and line.endswith(chosen)


def test_a_test_sequence_of_gopro_in_train(prepare: Command, copy: Callable[[str], Path]) -> None:
    root = copy("gopro")
    (root / "train/GOPR0372_07_00").rename(root / "train/GOPR0871_11_00")
    (root / "MANIFEST.json").unlink()
    (line,) = faults(prepare, "gopro", "--out", root, "--partial")
    assert line.startswith("version") and "GOPR0871_11_00" in line


def test_the_half_size_urban100(prepare: Command, tmp_path: Path) -> None:
    place(tmp_path / "HR/img_001.png", picture("u", 340, 512))
    (line,) = faults(prepare, "urban100", "--out", tmp_path, "--partial")
    assert "image_SRF_2" in line
    place(tmp_path / "HR/img_001.png", picture("u", 680, 1024))
    sound(prepare, "urban100", "--out", tmp_path, "--partial")


@pytest.mark.parametrize(("size", "said"), [((500, 500), "FFDNet"), ((768, 512), "originals")])
def test_which_kodak(prepare: Command, tmp_path: Path, size: tuple[int, int], said: str) -> None:
    put(tmp_path, [f"HR/kodim{n:02d}.png" for n in range(1, 25)], *size)
    assert said in sound(prepare, "kodak24", "--out", tmp_path)
    put(tmp_path, ["HR/kodim03.png"], 96, 96)
    (line,) = faults(prepare, "kodak24", "--out", tmp_path)
    assert line.startswith("version")


def test_reside_pairs_and_versions(prepare: Command, tmp_path: Path) -> None:
    put(tmp_path, ["SOTS/indoor/gt/1400.png"], 480, 640)
    put(tmp_path, [f"SOTS/indoor/hazy/1400_{k}.png" for k in (1, 2)], 460, 620)
    said = sound(prepare, "reside", "--out", tmp_path, "--partial")
    assert "640x480, as commonly packed" in said
    put(tmp_path, ["OTS/clear/0001.jpg", "OTS/hazy/0001_0.8_0.2.jpg"])
    (line,) = faults(prepare, "reside", "--out", tmp_path, "--partial")
    assert "1 clear, 1 hazy" in line
    put(tmp_path, ["SOTS/indoor/hazy/1401_1.png"], 460, 620)
    put(tmp_path, ["SOTS/indoor/gt/1400.png"], 475, 631)
    found = faults(prepare, "reside", "--out", tmp_path, "--partial")
    assert any(line.startswith("pairs") and "1401_1.png" in line for line in found)
    assert any(line.startswith("size") and "631x475" in line for line in found)


def test_sidd_blocks(prepare: Command, tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    for name in BLOCK_FILES:
        write_blocks(tmp_path / "val" / name, np.zeros((2, 3, 8, 8, 3), np.uint8))
    (line,) = faults(prepare, "sidd", "--out", tmp_path, "--partial")
    assert "2x3x8x8x3" in line and "40x32x256x256x3" in line
    write_blocks(tmp_path / "val" / BLOCK_FILES[1], np.zeros((2, 2, 8, 8, 3), np.uint8))
    (line,) = faults(prepare, "sidd", "--out", tmp_path, "--partial")
    assert "(2, 3, 8, 8, 3) and (2, 2, 8, 8, 3)" in line


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(SETS))
def test_nothing_there(prepare: Command, tmp_path: Path, name: str) -> None:
    refused(prepare("doctor", name, "--out", tmp_path / "none"), "DAT02", SETS[name].title)
    (tmp_path / "notes.txt").write_text("mine")
    refused(prepare("doctor", name, "--out", tmp_path), "DAT03", SETS[name].title)


def test_another_sets_folder(prepare: Command, made: Path) -> None:
    refused(prepare("doctor", "set14", "--out", made / "set5"), "DAT16", "set5", "set14")
