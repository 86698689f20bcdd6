"""`restore prepare demo`, `resize`, `score`, `infer` and `convert`, as a user calls them."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor

from restore import images
from restore.archs import build_network
from restore.archs.span import SPAN
from restore.archs.weights import about_weights, describe, write_safetensors
from restore.commands.main import main
from restore.data.prepare import demo
from restore.metrics.protocols import PROTOCOLS
from restore.metrics.scores import score, score_bicubic
from restore.ops.resize import imresize

RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Answer:
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture
def restore(capsys: pytest.CaptureFixture[str]) -> Command:
    """`restore …` in this process, its streams caught."""

    def run(*argv: object) -> Answer:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        caught = capsys.readouterr()
        return Answer(code, caught.out, caught.err)

    return run


def refused(answer: Answer, code: str, *words: object) -> None:
    assert answer.code == 2 and answer.out == "", answer
    assert answer.err.startswith(f"error[{code}]: ") and answer.err.count("\n") == 1, answer.err
    assert all(str(word) in answer.err for word in words), answer.err


def picture(height: int, width: int, *more: int, dtype: Any = np.uint8) -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max + 1, (height, width, *more), dtype=dtype)


def put(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images.write(path, image)
    return path


def transparent(path: Path) -> Path:
    rgba = picture(8, 9, 4)
    Image.fromarray(rgba).save(path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(folder)}


# prepare demo -------------------------------------------------------------------------------------

TRAIN = [f"{n:04d}" for n in range(1, 9)]
SCENES = "astronaut rocket hubble_deep_field retina ihc brick grass gravel".split()
OUTDOOR = ("0.8_0.5", "0.85_0.7", "0.9_0.6", "1_0.9")
BETAS = "0.64 1.31 0.79 1.46 0.94 1.61 1.09 1.76 1.24 0.71 1.39 0.86 1.54 1.01 1.69 1.16".split()
PAIRED = [
    *(f"GOPRO_Large/train/{s}/{kind}/000001.png" for s in SCENES for kind in ("blur", "sharp")),
    *(
        f"GOPRO_Large/test/{s}/{kind}/00000{n}.png"
        for s in ("chelsea", "motorcycle_left")
        for kind in ("blur", "sharp")
        for n in (1, 2, 3)
    ),
    *(
        f"SIDD_Medium_Srgb/Data/{n:04d}_{n:03d}_DEMO_00000_00000_0000_N/{n:04d}_{kind}_SRGB_010.PNG"
        for n in range(1, 9)
        for kind in ("GT", "NOISY")
    ),
    "SIDD_Validation/ValidationGtBlocksSrgb.mat",
    "SIDD_Validation/ValidationNoisyBlocksSrgb.mat",
    *(f"ITS/clear/{n}.png" for n in range(1, 9)),
    *(f"ITS/hazy/{n // 2 + 1}_{n % 2 + 1}_{beta}.png" for n, beta in enumerate(BETAS)),
    *(f"SOTS/indoor/gt/{n}.png" for n in (1400, 1401)),
    *(f"SOTS/indoor/hazy/{n}_{k}.png" for n in (1400, 1401) for k in (1, 2, 3, 4)),
    *(f"SOTS/outdoor/gt/{n}.png" for n in ("0001", "0002")),
    *(f"SOTS/outdoor/hazy/{n}_{haze}.png" for n in ("0001", "0002") for haze in OUTDOOR),
]


def layout() -> list[str]:
    """The demo's files, in DIV2K's names and those of the benchmark sets."""
    files = ["MANIFEST.json"]
    for kind, stems in (("train", TRAIN), ("valid", ["0801"])):
        files += [f"DIV2K/DIV2K_{kind}_HR/{stem}.png" for stem in stems]
        lr = f"DIV2K/DIV2K_{kind}_LR_bicubic"
        files += [f"{lr}/X{s}/{stem}x{s}.png" for s in (2, 3, 4) for stem in stems]
    for stem in ("chelsea", "motorcycle_left"):
        files.append(f"benchmark/DemoTest/HR/{stem}.png")
        files += [f"benchmark/DemoTest/LR_bicubic/X{s}/{stem}x{s}.png" for s in (2, 3, 4)]
    return sorted(files + PAIRED)


@pytest.fixture
def own_demo(demo_set: Path, tmp_path: Path) -> Path:
    return shutil.copytree(demo_set, tmp_path / "demo")


def test_the_demo_is_laid_out_as_div2k_is(demo_set: Path) -> None:
    assert names(demo_set) == layout()
    for file in demo_set.rglob("*_HR/*.png"):
        check_pair(file, file.parent.with_name(file.parent.name.replace("_HR", "_LR_bicubic")))
    for file in demo_set.rglob("HR/*.png"):
        check_pair(file, file.parents[1] / "LR_bicubic")


def check_pair(file: Path, lr: Path) -> None:
    hr = images.read(file)
    assert hr.ndim == 3 and min(hr.shape[:2]) >= 200
    assert hr.shape[0] % 12 == hr.shape[1] % 12 == 0
    for scale in (2, 3, 4):
        small = images.read(lr / f"X{scale}/{file.stem}x{scale}.png")
        np.testing.assert_array_equal(small, imresize(hr, 1 / scale))


def test_the_demo_is_the_same_everywhere(demo_set: Path, tmp_path: Path, restore: Command) -> None:
    other = tmp_path / "deep/er/other"
    answer = restore("prepare", "demo", "--out", other)
    assert answer.code == 0 and answer.out == (
        f"{other}: 11 images and their LR at ×2, ×3, ×4; blurred, noisy and hazy pairs of them\n"
    )
    assert contents(other) == contents(demo_set)
    assert names(tmp_path) == [f"deep/er/other/{name}" for name in layout()]


def test_a_second_call_finds_the_demo_there(own_demo: Path, restore: Command) -> None:
    before = {name: (own_demo / name).stat().st_mtime_ns for name in names(own_demo)}
    answer = restore("prepare", "demo", "--out", own_demo)
    assert (answer.code, answer.out) == (
        0,
        f"{own_demo}: already there, 11 images, checksums match\n",
    )
    assert {name: (own_demo / name).stat().st_mtime_ns for name in names(own_demo)} == before


def spoil_pixels(folder: Path) -> None:
    file = folder / "DIV2K/DIV2K_train_HR/0003.png"
    image = images.read(file)
    image[0, 0, 0] ^= 1
    images.write(file, image)


def cut_short(folder: Path) -> None:
    file = folder / "benchmark/DemoTest/HR/chelsea.png"
    file.write_bytes(file.read_bytes()[:-100])


def spoil_a_block(folder: Path) -> None:
    file = folder / "SIDD_Validation/ValidationGtBlocksSrgb.mat"
    file.write_bytes(file.read_bytes()[:-100])


def forget(folder: Path) -> None:
    shutil.rmtree(folder / "DIV2K/DIV2K_valid_LR_bicubic")


def cut_manifest(folder: Path) -> None:
    (folder / "MANIFEST.json").write_text('{"DIV2K')


def thin_manifest(folder: Path) -> None:
    """A manifest that says less must not make a set with less in it whole."""
    whole = json.loads((folder / "MANIFEST.json").read_text())
    first, *rest = whole
    (folder / first).unlink()
    (folder / "MANIFEST.json").write_text(json.dumps({name: whole[name] for name in rest}))


@pytest.mark.parametrize(
    "damage", [spoil_pixels, cut_short, spoil_a_block, forget, cut_manifest, thin_manifest]
)
def test_a_damaged_demo_is_repaired(
    demo_set: Path, own_demo: Path, restore: Command, damage: Callable[[Path], None]
) -> None:
    damage(own_demo)
    assert contents(own_demo) != contents(demo_set)
    answer = restore("prepare", "demo", "--out", own_demo)
    assert answer.code == 0 and "already there" not in answer.out
    assert contents(own_demo) == contents(demo_set)


def test_the_current_folder_can_take_the_demo(
    demo_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restore: Command
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert restore("prepare", "demo", "--out", ".").code == 0
    assert names(tmp_path / "here") == layout()


@pytest.mark.parametrize(
    "held",
    [
        {"notes.txt": "mine"},
        {"DIV2K/DIV2K_train_HR/0001.png": "the real DIV2K"},
        {"MANIFEST.json": '{"step": 300}', "model.safetensors": "a checkpoint"},
        {"MANIFEST.json": "{}", ".hidden": "mine"},
    ],
)
def test_a_foreign_folder_is_left_alone(
    tmp_path: Path, restore: Command, held: dict[str, str]
) -> None:
    folder = tmp_path / "data"
    for name, text in held.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    refused(restore("prepare", "demo", "--out", folder), "DAT16", folder, "--out")
    assert {name: (folder / name).read_text() for name in names(folder)} == held
    assert names(tmp_path) == sorted(f"data/{name}" for name in held)


def test_a_file_of_the_user_in_a_damaged_demo_is_kept(own_demo: Path, restore: Command) -> None:
    (own_demo / "benchmark/notes.txt").write_text("mine")
    assert "already there" in restore("prepare", "demo", "--out", own_demo).out
    forget(own_demo)
    refused(restore("prepare", "demo", "--out", own_demo), "DAT16", "benchmark/notes.txt")
    assert (own_demo / "benchmark/notes.txt").read_text() == "mine"


def test_a_file_where_the_demo_should_go(tmp_path: Path, restore: Command) -> None:
    (tmp_path / "demo").write_text("a file")
    refused(restore("prepare", "demo", "--out", tmp_path / "demo"), "DAT16", "got a file")


def test_no_test_image_is_trained_on(demo_set: Path) -> None:
    manifest = json.loads((demo_set / "MANIFEST.json").read_text())
    assert sorted(manifest) == [name for name in layout() if name != "MANIFEST.json"]
    scenes: dict[str, set[str]] = {"train": set(), "valid": set(), "benchmark": set()}
    tests = ("benchmark/", "GOPRO_Large/test/", "SOTS/", "SIDD_Validation/")
    pixels: dict[str, str] = {}
    for name, entry in manifest.items():
        part = "valid" if "valid" in name else "benchmark" if name.startswith(tests) else "train"
        for file in entry["origin"].removeprefix("scikit-image: ").split():
            scenes[part].add(Path(file).stem.removesuffix("_left").removesuffix("_right"))
        assert pixels.setdefault(entry["pixels_sha256"], part) == part
    assert [len(scenes[part]) for part in scenes] == [8, 1, 2]
    assert len(set.union(*scenes.values())) == 11


def test_another_scikit_image_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, restore: Command
) -> None:
    changed = (*demo.ORIGINS[:-1], replace(demo.ORIGINS[-1], sha256="0" * 12))
    monkeypatch.setattr(demo, "ORIGINS", changed)
    refused(restore("prepare", "demo", "--out", tmp_path / "demo"), "DAT17", "motorcycle_left.png")
    assert not (tmp_path / "demo").exists()


# resize -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", ["1/4", "0.25", "1/3", "0.37", "4", "1.5"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_resize_a_file(tmp_path: Path, restore: Command, scale: str, dtype: Any) -> None:
    image = picture(13, 10, 3, dtype=dtype)
    source = put(tmp_path / "in.png", image)
    answer = restore("resize", "--scale", scale, source, tmp_path / "new/out.png")
    assert answer == Answer(0, "", "")
    factor = Fraction(scale)
    found = images.read(tmp_path / "new/out.png")
    assert found.dtype == dtype
    assert found.shape == (math.ceil(13 * factor), math.ceil(10 * factor), 3)
    np.testing.assert_array_equal(found, imresize(image, float(factor)))


def test_resize_a_folder_as_div2k_was(demo_set: Path, tmp_path: Path, restore: Command) -> None:
    hr = demo_set / "benchmark/DemoTest/HR"
    assert restore("resize", "--scale", "1/3", hr, tmp_path / "lr").code == 0
    assert names(tmp_path / "lr") == ["chelsea.png", "motorcycle_left.png"]
    for name in names(tmp_path / "lr"):
        official = hr.parent / f"LR_bicubic/X3/{Path(name).stem}x3.png"
        np.testing.assert_array_equal(images.read(tmp_path / "lr" / name), images.read(official))


def test_resize_options(tmp_path: Path, restore: Command) -> None:
    gray = picture(22, 19)
    source, out = put(tmp_path / "in.png", gray), tmp_path / "out.png"
    wanted = {
        (): imresize(gray, 0.25),
        ("--edge", "clamp"): imresize(gray, 0.25, edge="clamp"),
        ("--round-once",): imresize(gray, 0.25, round_between_passes=False),
        ("--modcrop", "4"): imresize(gray[:20, :16], 0.25),
    }
    assert len({array.tobytes() for array in wanted.values()}) == 4
    for options, expected in wanted.items():
        assert restore("resize", "--scale", "1/4", *options, source, out).code == 0
        np.testing.assert_array_equal(images.read(out), expected)


def test_resize_a_file_into_a_folder(tmp_path: Path, restore: Command) -> None:
    source = put(tmp_path / "photo.tif", picture(8, 8, 3))
    assert restore("resize", "--scale", "2", source, tmp_path / "out").code == 0
    assert names(tmp_path / "out") == ["photo.png"]


@pytest.mark.parametrize("scale", ["0", "-1", "x", "1/0", "nan", "inf", "1e-9", ""])
def test_resize_refuses_what_is_no_scale(tmp_path: Path, restore: Command, scale: str) -> None:
    source = put(tmp_path / "in.png", picture(4, 4))
    answer = restore("resize", f"--scale={scale}", source, tmp_path / "out.png")
    refused(answer, "OPT42", "--scale", repr(scale))
    assert names(tmp_path) == ["in.png"]


def test_resize_refuses_a_result_beyond_all_memory(tmp_path: Path, restore: Command) -> None:
    source = put(tmp_path / "in.png", picture(4, 4))
    refused(restore("resize", "--scale", "1e6", source, tmp_path / "out.png"), "IMG09", source)


def test_resize_refuses_a_modcrop_of_none(tmp_path: Path, restore: Command) -> None:
    source = put(tmp_path / "in.png", picture(4, 4))
    answer = restore("resize", "--scale", "2", "--modcrop", "0", source, tmp_path / "out.png")
    refused(answer, "OPT18", "--modcrop")


def bad_inputs(folder: Path) -> dict[str, Callable[[], object]]:
    file = folder / "c.png"
    return {
        "IMG01": lambda: file.touch(),
        "IMG02": lambda: file.write_text("<html>"),
        "IMG03": lambda: file.write_bytes(put(file, picture(9, 9, 3)).read_bytes()[:-20]),
        "IMG06": lambda: transparent(file),
    }


@pytest.mark.parametrize("code", ["IMG01", "IMG02", "IMG03", "IMG06"])
def test_one_bad_image_stops_a_folder_before_anything_is_written(
    tmp_path: Path, restore: Command, tiny: Path, code: str
) -> None:
    folder = tmp_path / "in"
    for name in ("a.png", "b.png", "d.png"):
        put(folder / name, picture(6, 6, 3))
    bad_inputs(folder)[code]()
    for command in (("resize", "--scale", "2"), ("infer", "--weights", tiny)):
        refused(restore(*command, folder, tmp_path / "out"), code, folder / "c.png")
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", ["resize", "infer"])
def test_inputs_and_outputs_that_cannot_be(
    tmp_path: Path, restore: Command, tiny: Path, command: str
) -> None:
    words = ["resize", "--scale", "2"] if command == "resize" else ["infer", "--weights", tiny]
    folder = tmp_path / "in"
    source = put(folder / "a.png", picture(5, 5, 3))
    before = source.read_bytes()
    refused(restore(*words, tmp_path / "gone.png", tmp_path / "out.png"), "IMG00", "gone.png")
    (tmp_path / "empty").mkdir()
    refused(restore(*words, tmp_path / "empty", tmp_path / "out"), "DAT03", "empty")
    for where in (folder, source, folder / "../in"):  # would replace the input
        refused(restore(*words, source, where), "OPT22", "got an input")
    refused(restore(*words, folder, folder), "OPT22", "got an input")
    (tmp_path / "file").write_text("text")
    refused(restore(*words, folder, tmp_path / "file"), "OPT22", "got a file")
    put(folder / "a.bmp", picture(5, 5, 3))
    refused(restore(*words, folder, tmp_path / "out"), "DAT15", "got a;")
    assert source.read_bytes() == before
    assert names(tmp_path) == ["file", "in/a.bmp", "in/a.png"]


# score --------------------------------------------------------------------------------------------


def test_score_prints_a_table(tmp_path: Path, restore: Command) -> None:
    target, restored = picture(20, 24, 3), picture(20, 24, 3)
    put(tmp_path / "hr/b.png", target), put(tmp_path / "sr/b.png", restored)
    put(tmp_path / "hr/a.png", restored), put(tmp_path / "sr/a.png", restored // 2)
    answer = restore("score", "--border", "2", tmp_path / "sr", tmp_path / "hr")
    rows = [
        score(PROTOCOLS["sr-y"], sr, hr, 2)
        for sr, hr in ((restored // 2, restored), (restored, target))
    ]
    rows.append(((rows[0][0] + rows[1][0]) / 2, (rows[0][1] + rows[1][1]) / 2))
    head, _, *lines = answer.out.splitlines()
    assert answer.code == 0 and head.split() == "sr-y@1, border 2 PSNR [dB] SSIM".split()
    labels = ["a", "b", "mean of 2"]
    for line, label, (psnr, ssim) in zip(lines, labels, rows, strict=True):
        assert line.split() == [*label.split(), f"{psnr:.4f}", f"{ssim:.5f}"]


UNALIGNED = [name for name in PROTOCOLS if name != "realblur-rgb"]


@pytest.mark.parametrize("protocol", UNALIGNED)
def test_score_as_json(tmp_path: Path, restore: Command, protocol: str) -> None:
    hr = put(tmp_path / "hr.png", picture(20, 24, 3))
    sr = put(tmp_path / "sr.png", picture(20, 24, 3))
    answer = restore("score", "--json", "--protocol", protocol, "--border", "3", sr, hr)
    psnr, ssim = score(PROTOCOLS[protocol], images.read(sr), images.read(hr), 3)
    assert answer.code == 0 and json.loads(answer.out) == {
        "psnr": psnr,
        "ssim": ssim,
        "images": 1,
        "protocol": f"{protocol}@1",
        "border": 3,
        "rows": [{"image": "hr", "psnr": psnr, "ssim": ssim}],
    }


def test_score_under_all_protocols(tmp_path: Path, restore: Command) -> None:
    """Every rule beside the others; one that refuses the pair says why and stops nobody."""
    hr = put(tmp_path / "hr.png", picture(20, 24, 3))
    sr = put(tmp_path / "sr.png", picture(20, 24, 3))
    answer = restore("score", "--protocol", "all", sr, hr)
    *lines, last = answer.out.splitlines()
    assert answer.code == 0 and [line.split()[0] for line in lines[2:]] == [
        f"{name}@1" for name in PROTOCOLS
    ]
    assert "images cannot be aligned" in lines[-1] and "–" in lines[-1]
    found = json.loads(restore("score", "--protocol", "all", "--json", sr, hr).out)
    assert list(found["refused"]) == ["realblur-rgb@1"]
    psnrs = [table["psnr"] for table in found["protocols"]]
    assert len(psnrs) == len(PROTOCOLS) - 1
    assert last.startswith(f"the same images: {max(psnrs) - min(psnrs):.2f} dB and ")
    for table in found["protocols"]:
        rule = PROTOCOLS[table["protocol"].removesuffix("@1")]
        assert (table["psnr"], table["ssim"]) == score(rule, images.read(sr), images.read(hr), 0)


def test_score_under_all_protocols_without_a_network(tmp_path: Path, restore: Command) -> None:
    hr = put(tmp_path / "hr.png", picture(40, 44, 3))
    found = json.loads(restore("score", "--protocol", "all", "--bicubic", "2", "--json", hr).out)
    borders = {table["protocol"]: table["border"] for table in found["protocols"]}
    assert borders["sr-y@1"] == borders["rgb@1"] == 2 and borders["gopro-rgb@1"] == 0


def test_score_cuts_a_larger_target_around_its_centre(tmp_path: Path, restore: Command) -> None:
    hr, sr = picture(40, 46, 3), picture(20, 26, 3)
    files = put(tmp_path / "sr.png", sr), put(tmp_path / "hr.png", hr)
    words = ("score", "--json", "--protocol", "sots-rgb", *files)
    found = json.loads(restore(*words).out)
    assert (found["psnr"], found["ssim"]) == score(PROTOCOLS["sots-rgb"], sr, hr[10:30, 10:36], 0)
    put(files[1], picture(25, 30, 3))
    refused(restore(*words), "DAT06", files[0], "even")


def test_score_of_identical_images_is_infinite(tmp_path: Path, restore: Command) -> None:
    hr = put(tmp_path / "hr.png", picture(20, 24, 3))
    sr = shutil.copy(hr, tmp_path / "sr.png")
    answer = restore("score", sr, hr)
    assert answer.out.splitlines()[2].split() == ["hr", "inf", "1.00000"]
    assert answer.out.endswith("inf: identical images\n")
    found = json.loads(restore("score", "--json", sr, hr).out)
    assert found["psnr"] == found["rows"][0]["psnr"] == math.inf and found["ssim"] == 1
    assert found["border"] == 0


def test_score_of_the_bicubic_row(demo_set: Path, restore: Command) -> None:
    hr = demo_set / "benchmark/DemoTest/HR"
    answer = restore("score", "--protocol", "vdsr-y", "--bicubic", "4", "--json", hr)
    found = json.loads(answer.out)
    assert found["border"] == 4 and [row["image"] for row in found["rows"]] == [
        "chelsea",
        "motorcycle_left",
    ]
    for row in found["rows"]:
        expected = score_bicubic(PROTOCOLS["vdsr-y"], images.read(hr / f"{row['image']}.png"), 4, 4)
        assert (row["psnr"], row["ssim"]) == expected
    one = restore("score", "--bicubic", "4", "--border", "0", "--json", hr / "chelsea.png")
    assert json.loads(one.out)["border"] == 0 and json.loads(one.out)["images"] == 1


def test_score_pairs_by_name(tmp_path: Path, restore: Command) -> None:
    """`img_1x4`, `img_10_SPAN`: the longest target's name with no digit after it."""
    for stem, suffix in (("img_1", "x4"), ("img_10", "_SPAN"), ("img", "")):
        image = picture(12, 12, 3)
        put(tmp_path / f"hr/{stem}.png", image)
        put(tmp_path / f"sr/{stem}{suffix}.png", image)
    found = json.loads(restore("score", "--json", tmp_path / "sr", tmp_path / "hr").out)
    assert [row["image"] for row in found["rows"]] == ["img", "img_1", "img_10"]
    assert found["psnr"] == math.inf
    for stem in ("img", "img_10"):
        (tmp_path / f"hr/{stem}.png").unlink()
    (tmp_path / "sr/img.png").unlink()
    put(tmp_path / "sr/img_10.png", picture(12, 12, 3))
    answer = restore("score", tmp_path / "sr", tmp_path / "hr")
    refused(answer, "DAT05", "got img_10, img_10_SPAN without target, none not restored")


def test_score_cuts_a_target_that_was_not_cut_to_the_scale(
    tmp_path: Path, restore: Command
) -> None:
    hr, sr = picture(27, 23, 3), picture(20, 20, 3)
    files = put(tmp_path / "sr.png", sr), put(tmp_path / "hr.png", hr)
    found = json.loads(restore("score", "--json", *files).out)
    assert (found["psnr"], found["ssim"]) == score(PROTOCOLS["sr-y"], sr, hr[:20, :20], 0)
    for height, width in ((28, 20), (19, 20), (20, 28)):
        put(files[1], picture(height, width, 3))
        refused(restore("score", *files), "DAT06", files[0], f"{width}×{height}")


@pytest.mark.parametrize("protocol", UNALIGNED)
def test_score_of_gray_beside_its_rgb_copy(tmp_path: Path, restore: Command, protocol: str) -> None:
    gray = picture(14, 14)
    files = put(tmp_path / "sr.png", gray), put(tmp_path / "hr.png", images.as_rgb(gray))
    found = json.loads(restore("score", "--json", "--protocol", protocol, *files).out)
    # kept apart from RGB, a gray plane has the full contrast that luma compresses to 219/255
    assert (found["psnr"] == math.inf) is (protocol != "vdsr-y")


def test_score_refuses_sets_that_do_not_pair(tmp_path: Path, restore: Command) -> None:
    for name in ("hr/a.png", "hr/b.png", "sr/a.png", "sr/ax2.png", "sr/c.png"):
        put(tmp_path / name, picture(12, 12, 3))
    answer = restore("score", tmp_path / "sr", tmp_path / "hr")
    refused(answer, "DAT05", "ax2, c without target", "b not restored")
    put(tmp_path / "hr/a.bmp", picture(12, 12, 3))
    refused(restore("score", tmp_path / "sr", tmp_path / "hr"), "DAT15", "a.bmp")


def test_score_names_the_image_that_is_too_small(tmp_path: Path, restore: Command) -> None:
    for name, side in (("a", 30), ("b", 14)):
        put(tmp_path / f"hr/{name}.png", picture(side, side, 3))
        put(tmp_path / f"sr/{name}.png", picture(side, side, 3))
    sets = tmp_path / "sr", tmp_path / "hr"
    refused(restore("score", "--border", "2", *sets), "DAT12", sets[1] / "b.png")
    refused(restore("score", "--border", "7", *sets), "DAT14", sets[1] / "b.png")
    tiny = put(tmp_path / "tiny.png", picture(3, 30, 3))
    refused(restore("score", "--bicubic", "4", tiny), "DAT12", tiny, "30×3")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["a.png"], "OPT40"),
        (["a.png", "b.png", "c.png"], "OPT40"),
        (["--bicubic", "2", "a.png", "b.png"], "OPT40"),
        (["--bicubic", "1", "a.png"], "OPT18"),
        (["--border", "-1", "a.png", "b.png"], "OPT18"),
        (["--protocol", "psnr", "a.png", "b.png"], "OPT40"),
        (["--lpips", "a.pth", "--bicubic", "2", "a.png"], "OPT40"),
        (["--dists", "a.pth", "--protocol", "all", "a.png", "b.png"], "OPT40"),
        (["gone.png", "gone.png"], "IMG00"),
    ],
)
def test_score_refuses_a_wrong_command_line(restore: Command, words: list[str], code: str) -> None:
    refused(restore("score", *words), code)


# infer --------------------------------------------------------------------------------------------


def span(seed: int = 0, **options: Any) -> SPAN:
    """A network whose outputs fill [0, 1] without leaving it much."""
    torch.manual_seed(seed)
    network = build_network({"type": "SPAN", "feature_channels": 8, "upscale": 2, **options})
    assert isinstance(network, SPAN)
    with torch.no_grad():
        last: Any = network.upsampler[0]
        last.weight.mul_(0.05)
        last.bias.fill_(0.5)
    return network


def write_own(file: Path, network: SPAN) -> Path:
    write_safetensors(
        file, network.state_dict(), describe(network.options, network.options.upscale)
    )
    return file


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Self-describing weights of `span()`."""
    return write_own(tmp_path_factory.mktemp("weights") / "tiny.safetensors", span())


def close_to(found: np.ndarray, network: SPAN, image: np.ndarray) -> None:
    """`found` is what `network` makes of `image`, but for roundings of a float32 result."""
    top = int(np.iinfo(image.dtype).max)
    planes = image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
    lq: Tensor = torch.from_numpy(planes.astype(np.float64) / top).unsqueeze(0)
    with torch.no_grad():
        exact = network.double()(lq)[0].clamp(0, 1).numpy() * top
    network.float()
    exact = exact[0] if exact.shape[0] == 1 else exact.transpose(1, 2, 0)
    assert found.dtype == image.dtype and found.shape == exact.shape
    assert len(np.unique(found)) > 20
    assert np.abs(found - exact).max() <= 0.5 + 1e-5 * top


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_infer_with_weights_that_say_what_they_are_for(
    tmp_path: Path, restore: Command, tiny: Path, dtype: Any
) -> None:
    image = picture(7, 9, 3, dtype=dtype)
    source, out = put(tmp_path / "in.png", image), tmp_path / "new/out.png"
    assert restore("infer", "--weights", tiny, source, out) == Answer(0, "", "")
    close_to(images.read(out), span(), image)


def test_infer_a_folder(tmp_path: Path, restore: Command, tiny: Path) -> None:
    pictures = {"a.png": picture(5, 6, 3), "b.tif": picture(6, 5, 3, dtype=np.uint16)}
    for name, image in pictures.items():
        put(tmp_path / "in" / name, image)
    answer = restore("infer", "--weights", tiny, tmp_path / "in", tmp_path / "out")
    assert answer.code == 0 and answer.out == ""
    assert names(tmp_path / "out") == ["a.png", "b.png"]
    for name, image in pictures.items():
        close_to(images.read(tmp_path / "out" / f"{Path(name).stem}.png"), span(), image)


def test_infer_with_arch_and_scale(tmp_path: Path, restore: Command) -> None:
    network = span(1, upscale=3)
    torch.save({"params": network.official_state()}, tmp_path / "net.pth")
    image = picture(5, 6, 3)
    source, out = put(tmp_path / "in.png", image), tmp_path / "out.png"
    words = ["infer", "--weights", tmp_path / "net.pth"]
    told = ["--arch", "SPAN", "--scale", "3", "--set", "feature_channels=8", source, out]
    assert restore(*words, *told).code == 0
    close_to(images.read(out), network, image)
    out.unlink()
    answer = restore(*words, source, out)  # names and shapes tell it
    assert answer.code == 0 and "weights of SPAN" in answer.err and "img_range 255" in answer.err
    close_to(images.read(out), network, image)
    out.unlink()
    refused(restore(*words, "--arch", "SPANN", "--scale", "3", source, out), "OPT24", "'SPAN'?")
    refused(restore(*words, *told, "--set", "featur_channels=8"), "OPT11", "'feature_channels'?")
    refused(restore(*words, "--arch", "SPAN", "--scale", "3", source, out), "WGT09", "net.pth")
    told[3] = "2"
    refused(restore(*words, *told), "WGT09", "upsampler.0.weight (27, 8, 3, 3) ≠ (12, 8, 3, 3)")
    refused(restore(*words, *told, "--set", "upscale=3"), "OPT33", "--scale")
    assert not out.exists()


def test_infer_with_an_option_file(tmp_path: Path, restore: Command) -> None:
    network = span(2)
    torch.save({"params_ema": network.official_state()}, tmp_path / "net.pth")
    opt = tmp_path / "test.yml"
    opt.write_text("name: any\nnetwork_g: {type: SPAN, feature_channels: 8, upscale: 2}\n")
    image = picture(5, 6, 3)
    source, out = put(tmp_path / "in.png", image), tmp_path / "out.png"
    words = ["infer", "--weights", tmp_path / "net.pth", "--opt", opt]
    assert restore(*words, source, out).code == 0
    close_to(images.read(out), network, image)
    assert restore(*words, "--scale", "2", source, out).code == 0
    refused(restore(*words, "--scale", "4", source, out), "OPT33", "got 4; expected 2")
    for text, code in (("name: x\n", "OPT12"), ("network_g: SPAN\n", "OPT17")):
        opt.write_text(text)
        refused(restore(*words, source, out), code, "network_g")


def test_infer_gray(tmp_path: Path, restore: Command, tiny: Path) -> None:
    gray = picture(6, 7)
    source, out = put(tmp_path / "in.png", gray), tmp_path / "out.png"
    assert restore("infer", "--weights", tiny, source, out).code == 0
    close_to(images.read(out), span(), images.as_rgb(gray))  # a network of RGB sees three of it
    network = span(3, num_in_ch=1, num_out_ch=1, rgb_mean=[0.4])
    weights = write_own(tmp_path / "gray.safetensors", network)
    assert restore("infer", "--weights", weights, source, out).code == 0
    close_to(images.read(out), network, gray)
    put(source, picture(6, 7, 3))
    refused(restore("infer", "--weights", weights, source, tmp_path / "new.png"), "IMG05", source)
    assert not (tmp_path / "new.png").exists()


def test_infer_of_transparency(tmp_path: Path, restore: Command, tiny: Path) -> None:
    source, out = transparent(tmp_path / "in.png"), tmp_path / "out.png"
    refused(restore("infer", "--weights", tiny, source, out), "IMG06", source)
    assert not out.exists()
    for alpha in ("drop", "black"):
        assert restore("infer", "--weights", tiny, "--alpha", alpha, source, out).code == 0
        close_to(images.read(out), span(), images.read(source, alpha=alpha))


def test_infer_turns_a_photo_upright(tmp_path: Path, restore: Command, tiny: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6  # stored lying on its side
    (tmp_path / "in").mkdir()
    Image.fromarray(picture(6, 10, 3)).save(tmp_path / "in/photo.jpg", exif=exif)
    for source in (tmp_path / "in/photo.jpg", tmp_path / "in"):
        assert restore("infer", "--weights", tiny, source, tmp_path / "out").code == 0
        assert images.read_size(tmp_path / "out/photo.png") == (20, 12)
        (tmp_path / "out/photo.png").unlink()


def test_infer_writes_nothing_a_format_cannot_hold(
    tmp_path: Path, restore: Command, tiny: Path
) -> None:
    source = put(tmp_path / "in.png", picture(5, 5, 3, dtype=np.uint16))
    refused(restore("infer", "--weights", tiny, source, tmp_path / "out.jpg"), "IMG13", "uint16")
    assert names(tmp_path) == ["in.png"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the GPU it asks for")
def test_infer_on_a_gpu_that_is_not_there(tmp_path: Path, restore: Command, tiny: Path) -> None:
    source = put(tmp_path / "in.png", picture(5, 5, 3))
    answer = restore("infer", "--weights", tiny, "--num_gpu", "1", source, tmp_path / "out.png")
    assert answer.code == 2 and answer.err.startswith("error[DEV")
    assert not (tmp_path / "out.png").exists()


def test_infer_without_weights(tmp_path: Path, restore: Command) -> None:
    source = put(tmp_path / "in.png", picture(5, 5, 3))
    words = ["--arch", "SPAN", "--scale", "2", source, tmp_path / "out.png"]
    refused(restore("infer", "--weights", tmp_path / "gone.pth", *words), "WGT05", "gone.pth")
    refused(restore("infer", "--weights", tmp_path, *words), "WGT05", "latest.json")


# convert ------------------------------------------------------------------------------------------


def state_of(file: Path) -> dict[str, Tensor]:
    return safetensors.torch.load_file(file)


def test_convert_there_and_back(tmp_path: Path, restore: Command, tiny: Path) -> None:
    pth, back = tmp_path / "net.pth", tmp_path / "back.safetensors"
    answer = restore("convert", tiny, pth)
    assert answer == Answer(0, f"{pth}: 204 tensors of SPAN\n", "")
    content = torch.load(pth, weights_only=True)
    assert list(content) == ["params"]
    official = span().official_state()
    assert list(content["params"]) == list(official) and len(official) == 204
    for key, value in official.items():
        assert torch.equal(content["params"][key], value) and content["params"][key].is_contiguous()
    told = ["--arch", "SPAN", "--scale", "2", "--set", "feature_channels=8"]
    assert restore("convert", pth, back, *told).code == 0
    before, after = about_weights(tiny), about_weights(back)
    assert after["network_g"] == before["network_g"] and after["scale"] == before["scale"] == 2
    assert state_of(back).keys() == state_of(tiny).keys()
    assert all(torch.equal(value, state_of(tiny)[key]) for key, value in state_of(back).items())
    assert names(tmp_path) == ["back.safetensors", "net.pth"]


def test_convert_chooses_the_container(tmp_path: Path, restore: Command) -> None:
    plain, averaged = span(1), span(2)
    source, out = tmp_path / "in.pth", tmp_path / "out.safetensors"
    torch.save({"params": plain.official_state(), "params_ema": averaged.official_state()}, source)
    told = ["--arch", "SPAN", "--scale", "2", "--set", "feature_channels=8"]
    for key, network in (
        ((), averaged),
        (("--key", "params"), plain),
        (("--key", "params_ema"), averaged),
    ):
        assert restore("convert", "--overwrite", *key, source, out, *told).code == 0
        found = safetensors.torch.load_file(out)
        assert all(torch.equal(found[k], v) for k, v in network.state_dict().items())
    torch.save({"params_ema": averaged.official_state()}, source)
    before = out.read_bytes()
    answer = restore("convert", "--overwrite", "--key", "params", source, out, *told)
    refused(answer, "WGT11", "'params'")
    assert out.read_bytes() == before


def checkpoint(folder: Path, step: int, **networks: SPAN) -> Path:
    """A run's checkpoint folder as far as weights are concerned."""
    saved = folder / f"checkpoints/step_{step:08d}"
    saved.mkdir(parents=True)
    for name, network in networks.items():
        write_own(saved / f"{name}.safetensors", network)
    (saved / "MANIFEST.json").write_text("{}")
    (folder / "checkpoints/latest.json").write_text(json.dumps({"step": step}))
    return saved


def test_convert_a_run(tmp_path: Path, restore: Command) -> None:
    plain, averaged = span(1), span(2)
    saved = checkpoint(tmp_path / "run", 300, model=plain, ema=averaged)
    for number, source in enumerate((tmp_path / "run", tmp_path / "run/checkpoints", saved)):
        out = tmp_path / f"{number}.pth"
        assert restore("convert", source, out).code == 0
        content = torch.load(out, weights_only=True)
        assert sorted(content) == ["params", "params_ema"]
        for key, value in plain.official_state().items():
            assert torch.equal(content["params"][key], value)
        for key, value in averaged.official_state().items():
            assert torch.equal(content["params_ema"][key], value)
    assert restore("convert", "--key", "params", tmp_path / "run", tmp_path / "one.pth").code == 0
    assert list(torch.load(tmp_path / "one.pth", weights_only=True)) == ["params"]


def test_convert_refuses_to_overwrite(tmp_path: Path, restore: Command, tiny: Path) -> None:
    out = tmp_path / "net.pth"
    out.write_text("precious")
    refused(restore("convert", tiny, out), "OPT22", out, "--overwrite")
    assert out.read_text() == "precious"
    assert restore("convert", "--overwrite", tiny, out).code == 0
    assert len(torch.load(out, weights_only=True)["params"]) == 204


def test_convert_leaves_nothing_behind_when_it_fails(
    tmp_path: Path, restore: Command, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_content: object, file: Path) -> None:
        Path(file).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    refused(restore("convert", tiny, tmp_path / "net.pth"), "SYS01", "no space left on device")
    assert names(tmp_path) == []


def test_convert_refuses_what_it_cannot_do(tmp_path: Path, restore: Command, tiny: Path) -> None:
    refused(restore("convert", tiny, tmp_path / "net.onnx"), "OPT43", "'.onnx'")
    refused(restore("convert", tiny, tmp_path / "gone/net.pth"), "WGT13", "gone")
    bare = tmp_path / "bare.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(2)}, bare)
    refused(restore("convert", bare, tmp_path / "net.pth"), "WGT14", "--opt FILE.yml")
    odd = tmp_path / "odd.safetensors"
    about = {"restore": json.dumps({"network_g": ["SPAN"]})}
    safetensors.torch.save_file(span().state_dict(), odd, metadata=about)
    refused(restore("convert", odd, tmp_path / "net.pth"), "OPT17")
    assert names(tmp_path) == ["bare.safetensors", "odd.safetensors"]


# As a program -------------------------------------------------------------------------------------


def test_the_exit_code_and_the_streams_of_the_program(tmp_path: Path) -> None:
    image = put(tmp_path / "in.png", picture(8, 8, 3))

    def program(*words: object) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "restore.commands", *map(str, words)],
            capture_output=True,
            text=True,
            encoding="utf-8",
            cwd=tmp_path,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    assert program("resize", "--scale", "1/2", image, "out.png") == (0, "", "")
    np.testing.assert_array_equal(
        images.read(tmp_path / "out.png"), imresize(images.read(image), 0.5)
    )
    code, out, err = program("resize", "--scale", "1/2", "gone.png", "out2.png")
    assert (code, out) == (2, "") and err.startswith("error[IMG00]: ") and err.count("\n") == 1


def test_unknown_output_suffix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images.write(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    assert main(["resize", "--scale", "2", str(tmp_path / "a.png"), str(tmp_path / "b.gif")]) == 2
    assert capsys.readouterr().err.startswith("error[OPT43]: unknown kind of image (OUT): got ")
    assert not (tmp_path / "b.gif").exists()


def test_a_path_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert main(["prepare", "demo", "--out", str(tmp_path / "file/demo")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error[SYS01]: the system refused a file operation (")
    assert error.count("error[") == 1 and "Traceback" not in error
