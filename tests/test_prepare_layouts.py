"""`restore prepare SET`: every set in every layout people have, and the tree that comes of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from prepare_trees import Command, contents, names, picture, place, put, refused, tarred, zipped
from scipy.io import savemat

from restore import images
from restore.data.blocks import write_blocks
from restore.data.options import PairedImageDataset
from restore.data.prepare.table import SETS
from restore.data.sources import open_source
from restore.ops.resize import imresize


@pytest.fixture
def prepare(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def pairs(**options: object) -> int:
    """How many pairs the data set of an option file finds; each is read once."""
    scale = int(str(options.pop("scale", 1)))
    source = open_source(PairedImageDataset(**options), scale, channels=3, training=False)  # type: ignore[arg-type]
    return sum(source[i].gt is not None for i in range(len(source)))


def bicubic(image: np.ndarray, scale: int) -> np.ndarray:
    height, width = (side - side % scale for side in image.shape[:2])
    return imresize(image[:height, :width], 1 / scale)


def test_option_files_look_where_sets_are_laid_out() -> None:
    """Every dataroot of options/*.yml in the folder of one of our sets is a folder of its parts."""
    records = {record.folder: record for record in SETS.values()}
    met = set()
    for file in sorted((Path(__file__).parents[1] / "options").glob("*.yml")):
        for root in re.findall(r"dataroot\w*: *(datasets/\S+)", file.read_text()):
            folder, _, rest = root.removeprefix("datasets/").partition("/")
            record = records.get(f"datasets/{folder}")
            if record is not None:
                met.add(folder)
                inside = (f"{part.name}/".startswith(f"{rest}/") for part in record.parts)
                assert not rest or any(inside), f"{file.name}: {root}"
    assert met >= {"DIV2K", "Set5", "B100", "GOPRO_Large", "HIDE", "SIDD"}


# DIV2K and DF2K -----------------------------------------------------------------------------------

HR = ("0001", "0800")


def div2k(root: Path) -> Path:
    put(root, [f"DIV2K_train_HR/{n}.png" for n in HR], 48, 72)
    put(root, ["DIV2K_valid_HR/0801.png"], 48, 72)
    for name in HR:
        hr = picture(f"DIV2K_train_HR/{name}.png", 48, 72)
        place(root / f"DIV2K_train_LR_bicubic/X2/{name}x2.png", bicubic(hr, 2))
    return root


def test_div2k_keeps_what_is_there_and_makes_the_rest(prepare: Command, tmp_path: Path) -> None:
    source, out = div2k(tmp_path / "got"), tmp_path / "DIV2K"
    answer = prepare("div2k", "--source", source, "--out", out)
    assert answer.code == 0, answer.err
    assert "DIV2K_train_HR: 2, the whole set has 800" in answer.out
    train = [f"DIV2K_train_LR_bicubic/X{s}/{n}x{s}.png" for s in (2, 3, 4) for n in HR]
    valid = [f"DIV2K_valid_LR_bicubic/X{s}/0801x{s}.png" for s in (2, 3, 4)]
    whole = [f"DIV2K_train_HR/{n}.png" for n in HR] + train + ["DIV2K_valid_HR/0801.png"] + valid
    assert names(out) == sorted(whole)
    for name in names(source):
        assert (out / name).read_bytes() == (source / name).read_bytes()
    hr = images.read(out / "DIV2K_train_HR/0001.png")
    made = images.read(out / "DIV2K_train_LR_bicubic/X3/0001x3.png")
    assert np.array_equal(made, bicubic(hr, 3))
    gt, lq = out / "DIV2K_train_HR", out / "DIV2K_train_LR_bicubic/X4"
    assert pairs(dataroot_gt=str(gt), dataroot_lq=str(lq), filename_tmpl="{}x4", scale=4) == 2


def test_div2k_from_its_five_zips_is_the_same(prepare: Command, tmp_path: Path) -> None:
    source = div2k(tmp_path / "got")
    archives = [
        zipped(folder.parent, tmp_path / f"down/{folder.name}.zip")
        for folder in _alone(source, tmp_path)
    ]
    assert prepare("div2k", "--source", source, "--out", tmp_path / "a").code == 0
    assert prepare("div2k", "--source", *archives, "--out", tmp_path / "b").code == 0
    assert prepare("div2k", "--source", tmp_path / "down", "--out", tmp_path / "c").code == 0
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")


def _alone(source: Path, tmp_path: Path) -> list[Path]:
    """Each top folder of `source` in a folder of its own, as the zips have them."""
    (tmp_path / "down").mkdir()
    moved = []
    for folder in sorted(source.iterdir()):
        place_ = tmp_path / "each" / folder.name
        place_.mkdir(parents=True)
        for name in names(folder):
            put_file(place_ / folder.name / name, (folder / name).read_bytes())
        moved.append(place_ / folder.name)
    return moved


def put_file(file: Path, data: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def test_sub_images_are_basicsrs(prepare: Command, tmp_path: Path) -> None:
    """600x504 at 480/240: columns 0, 120 (flush) and rows 0, 24 (flush): s001 to s004."""
    source, out = tmp_path / "got", tmp_path / "DIV2K"
    put(source, ["DIV2K_train_HR/0007.png"], 504, 600)
    words = ("div2k", "--source", source, "--out", out, "--sub-images")
    assert prepare(*words).code == 0
    hr = images.read(out / "DIV2K_train_HR/0007.png")
    for scale in (1, 2, 3, 4):
        folder = "DIV2K_train_HR_sub" if scale == 1 else f"DIV2K_train_LR_bicubic/X{scale}_sub"
        whole = hr if scale == 1 else bicubic(hr, scale)
        assert names(out / folder) == [f"0007_s00{k}.png" for k in (1, 2, 3, 4)]
        for k, (top, left) in enumerate([(0, 0), (0, 120), (24, 0), (24, 120)], start=1):
            top, left, side = top // scale, left // scale, 480 // scale
            tile = images.read(out / folder / f"0007_s00{k}.png")
            assert np.array_equal(tile, whole[top : top + side, left : left + side])
    gt, lq = out / "DIV2K_train_HR_sub", out / "DIV2K_train_LR_bicubic/X2_sub"
    assert pairs(dataroot_gt=str(gt), dataroot_lq=str(lq), scale=2) == 4
    refused(prepare(*words, "--crop", 240, "--step", 120), "DAT16", "480/240/0", "240/120/0")
    refused(prepare(*words, "--crop", 250), "OPT40", "multiple of 12")
    refused(prepare("div2k", "--source", source, "--crop", 240), "OPT40", "--sub-images")


def test_df2k_is_both_without_the_validation_images(prepare: Command, tmp_path: Path) -> None:
    div, out = div2k(tmp_path / "div"), tmp_path / "DF2K"
    flickr = put(tmp_path / "flickr", ["Flickr2K/Flickr2K_HR/000001.png"], 48, 72)
    put(flickr, ["Flickr2K/Flickr2K_LR_bicubic/X2/000001x2.png"], 24, 36)
    tar = tarred(flickr, tmp_path / "Flickr2K.tar")
    assert prepare("df2k", "--source", div, tar, "--out", out, "--scales", 2, 4).code == 0
    hr = ["0001", "0800", "000001"]
    expected = [f"HR/{n}.png" for n in hr]
    expected += [f"LR_bicubic/X{s}/{n}x{s}.png" for s in (2, 4) for n in hr]
    assert names(out) == sorted(expected)
    taken = out / "LR_bicubic/X2/000001x2.png"
    assert (
        taken.read_bytes() == (flickr / "Flickr2K/Flickr2K_LR_bicubic/X2/000001x2.png").read_bytes()
    )


# The test sets ------------------------------------------------------------------------------------

SET5 = ("baby", "bird")
SET5_TREE = sorted(
    [f"HR/{n}.png" for n in SET5]
    + [f"LR_bicubic/X{s}/{n}x{s}.png" for s in (2, 3, 4) for n in SET5]
)


@pytest.mark.parametrize("layout", ["edsr", "mair", "basicsr", "rcan", "flat", "hr"])
def test_set5_in_every_layout(prepare: Command, tmp_path: Path, layout: str) -> None:
    source, out = tmp_path / "down", tmp_path / "Set5"
    for name in SET5:
        hr = picture(name, 50, 62)
        lr = {s: bicubic(hr, s) for s in (2, 3, 4)}
        if layout in ("edsr", "mair"):
            place(source / f"benchmark/Set5/HR/{name}.png", hr)
            place(source / f"benchmark/Set14/HR/other{name}.png", hr)
            tag = "x{}" if layout == "edsr" else ""
            for s in lr:
                file = f"{name}{tag.format(s)}.png"
                place(source / f"benchmark/Set5/LR_bicubic/X{s}/{file}", lr[s])
        elif layout == "basicsr":
            place(source / f"Set5/GTmod12/{name}.png", hr)
            for s in lr:
                place(source / f"Set5/LRbicx{s}/{name}.png", lr[s])
        elif layout == "rcan":
            for s in lr:
                high, wide = (side * s for side in lr[s].shape[:2])
                place(source / f"HR/Set5/x{s}/{name}_HR_x{s}.png", hr[:high, :wide])
                place(source / f"LR/LRBI/Set5/x{s}/{name}_LRBI_x{s}.png", lr[s])
        else:
            place(source / ("HR" if layout == "hr" else "Set5") / f"{name}.png", hr)
    answer = prepare("set5", "--source", source, "--out", out)
    assert answer.code == 0, answer.err
    assert names(out) == SET5_TREE
    for name in SET5:
        hr = images.read(out / f"HR/{name}.png")
        whole = picture(name, 50, 62)
        assert np.array_equal(hr, whole[: hr.shape[0], : hr.shape[1]])
        assert hr.shape[0] * hr.shape[1] >= 50 * 60
        for s in (2, 3, 4):
            made = images.read(out / f"LR_bicubic/X{s}/{name}x{s}.png")
            assert np.array_equal(made, bicubic(whole, s))
    for s in (2, 3, 4):
        gt, lq = str(out / "HR"), str(out / f"LR_bicubic/X{s}")
        assert pairs(dataroot_gt=gt, dataroot_lq=lq, filename_tmpl=f"{{}}x{s}", scale=s) == 2


def test_official_set5_comes_out_to_the_byte(
    prepare: Command, tmp_path: Path, shared: Path
) -> None:
    """The HR alone, and the LR that MATLAB made of them."""
    out = tmp_path / "Set5"
    assert prepare("set5", "--source", shared / "data/Set5/HR", "--out", out).code == 0
    for file in sorted((shared / "data/Set5/LR_bicubic").rglob("*.png")):
        made = out / "LR_bicubic" / file.parent.name / file.name
        assert np.array_equal(images.read(made), images.read(file)), file.name


def test_urban100_of_selfexsr_is_of_full_size(prepare: Command, tmp_path: Path) -> None:
    """image_SRF_2 has HR of half the size; its LR are of an older MATLAB, and made anew."""
    source, out = tmp_path / "Urban100_SR", tmp_path / "Urban100"
    whole = picture("urban", 60, 84)
    for s, hr in ((2, bicubic(whole, 2)), (4, whole)):
        place(source / f"image_SRF_{s}/img_001_SRF_{s}_HR.png", hr)
        place(source / f"image_SRF_{s}/img_001_SRF_{s}_LR.png", picture("lr", 15, 21))
        place(source / f"image_SRF_{s}/img_001_SRF_{s}_SelfExSR.png", picture("method", 60, 84))
    zip_file = zipped(source, tmp_path / "Urban100_SR.zip")
    for place_ in (source, zip_file):
        assert prepare("urban100", "--source", place_, "--out", out).code == 0
        assert names(out) == ["HR/img_001.png"] + [
            f"LR_bicubic/X{s}/img_001x{s}.png" for s in (2, 3, 4)
        ]
        assert np.array_equal(images.read(out / "HR/img_001.png"), whole)
        lr = images.read(out / "LR_bicubic/X2/img_001x2.png")
        assert np.array_equal(lr, bicubic(whole, 2))


def test_b100_and_bsd400_of_bsds500(prepare: Command, tmp_path: Path) -> None:
    halves = {"train": "12003", "val": "3096", "test": "2018"}
    source = put(
        tmp_path / "down", [f"BSR/BSDS500/data/images/{h}/{n}.jpg" for h, n in halves.items()]
    )
    assert prepare("b100", "--source", source, "--out", tmp_path / "B100", "--scales", 2).code == 0
    assert names(tmp_path / "B100") == ["HR/3096.jpg", "LR_bicubic/X2/3096x2.png"]
    assert prepare("bsd400", "--source", source, "--out", tmp_path / "BSD400").code == 0
    assert names(tmp_path / "BSD400") == ["HR/12003.jpg", "HR/2018.jpg"]


def test_gray_hr_has_gray_lr_and_pairs(prepare: Command, tmp_path: Path) -> None:
    """Set14's bridge."""
    place(tmp_path / "Set14/bridge.bmp", picture("bridge", 24, 24, 1))
    out = tmp_path / "out"
    assert prepare("set14", "--source", tmp_path / "Set14", "--out", out).code == 0
    gt, lq = str(out / "HR"), str(out / "LR_bicubic/X2")
    assert pairs(dataroot_gt=gt, dataroot_lq=lq, filename_tmpl="{}x2", scale=2) == 1


# Blur ---------------------------------------------------------------------------------------------

SEQS = {"train": "GOPR0372_07_00", "test": "GOPR0384_11_00"}


def gopro(root: Path) -> Path:
    for half, seq in SEQS.items():
        for kind in ("blur", "blur_gamma", "sharp"):
            put(root, [f"GOPRO_Large/{half}/{seq}/{kind}/00000{n}.png" for n in (1, 2)])
    return root


GOPRO_TREE = sorted(
    f"{half}/{seq}/{kind}/00000{n}.png"
    for half, seq in SEQS.items()
    for kind in ("blur", "sharp")
    for n in (1, 2)
)


@pytest.mark.parametrize("variant", [None, "blur", "blur_gamma"])
def test_gopro_by_name_of_its_blur(prepare: Command, tmp_path: Path, variant: str | None) -> None:
    source, out = gopro(tmp_path / "down"), tmp_path / "GOPRO_Large"
    chosen = [] if variant is None else ["--variant", variant]
    assert prepare("gopro", "--source", source, "--out", out, *chosen).code == 0
    assert names(out) == GOPRO_TREE
    blur = "blur_gamma" if variant == "blur_gamma" else "blur"
    official = source / f"GOPRO_Large/train/{SEQS['train']}/{blur}/000001.png"
    assert (out / GOPRO_TREE[-4]).read_bytes() == official.read_bytes()
    assert json.loads((out / "MANIFEST.json").read_text())["variant"] == blur
    root = str(out / "test")
    assert pairs(dataroot_gt=root, dataroot_lq=root, pairing="gopro") == 2
    other = "blur" if blur == "blur_gamma" else "blur_gamma"
    refused(prepare("gopro", "--source", source, "--out", out, "--variant", other), "DAT16", other)


@pytest.mark.parametrize(
    ("blur", "sharp", "separator"), [("blur", "sharp", "_"), ("input", "target", "-")]
)
def test_gopro_repacks_become_the_official_tree(
    prepare: Command, tmp_path: Path, blur: str, sharp: str, separator: str
) -> None:
    """MIMO-UNet's and MPRNet's."""
    source, out = tmp_path / "down", tmp_path / "GOPRO_Large"
    for half, seq in SEQS.items():
        for kind in (blur, sharp):
            put(source, [f"GOPRO/{half}/{kind}/{seq}{separator}00000{n}.png" for n in (1, 2)])
    assert prepare("gopro", "--source", source, "--out", out).code == 0
    assert names(out) == GOPRO_TREE
    answer = prepare(
        "gopro", "--source", source, "--out", tmp_path / "g", "--variant", "blur_gamma"
    )
    refused(answer, "DAT24", "GoPro")


def test_gopro_crops_are_eight_a_frame(prepare: Command, tmp_path: Path) -> None:
    source, out = tmp_path / "down", tmp_path / "GOPRO_Large"
    seq = SEQS["train"]
    put(source, [f"train/{seq}/{kind}/000001.png" for kind in ("blur", "sharp")], 720, 1280)
    assert prepare("gopro", "--source", source, "--out", out, "--sub-images").code == 0
    for kind in ("input_crops", "target_crops"):
        assert names(out / "train" / kind) == [f"{seq}-000001-{k}.png" for k in range(1, 9)]
    last = images.read(out / f"train/input_crops/{seq}-000001-8.png")
    frame = images.read(out / f"train/{seq}/blur/000001.png")
    assert np.array_equal(last, frame[-512:, -512:])


def test_hide_official_and_repacked(prepare: Command, tmp_path: Path) -> None:
    train, test = "1fromGOPR0950.png", ["109fromGOPR1096.MP4.png", "12fromGOPR1000.png"]
    official = put(tmp_path / "a", [f"HIDE_dataset/GT/{n}" for n in (train, *test)])
    put(official, [f"HIDE_dataset/train/{train}", f"HIDE_dataset/test/test-close-ups/{test[0]}"])
    put(official, [f"HIDE_dataset/test/test-long-shot/{test[1]}"])
    out = tmp_path / "HIDE"
    assert prepare("hide", "--source", official, "--out", out).code == 0
    tested = sorted(f"{kind}/{n}" for kind in ("input", "target") for n in test)
    assert names(out) == sorted([*tested, f"train/input/{train}", f"train/target/{train}"])
    assert pairs(dataroot_gt=str(out / "target"), dataroot_lq=str(out / "input")) == 2
    packed = put(tmp_path / "b", [f"HIDE/{name}" for name in tested])
    assert prepare("hide", "--source", packed, "--out", tmp_path / "HIDE2").code == 0
    assert names(tmp_path / "HIDE2") == tested


def test_realblur_is_parted_by_its_lists(prepare: Command, tmp_path: Path) -> None:
    folder = "RealBlur-J_ECC_IMCORR_centroid_itensity_ref"
    source, out = tmp_path / "RealBlur", tmp_path / "RealBlur_J"
    lines: dict[str, list[str]] = {"train": [], "test": []}
    for half, scene in (("train", "scene001"), ("test", "scene244_reflect")):
        put(source, [f"{folder}/{scene}/{k}/{k}_{n}.png" for k in ("blur", "gt") for n in (1, 2)])
        listed = scene.removesuffix("_reflect")
        lines[half] = [
            f"{folder}/{listed}/gt/gt_{n}.png {folder}/{listed}/blur/blur_{n}.png" for n in (1, 2)
        ]
    refused(prepare("realblur-j", "--source", source, "--out", out), "DAT24", "test_list.txt")
    for half in lines:
        (source / f"RealBlur_J_{half}_list.txt").write_text("\n".join(lines[half]))
    archive = tarred(source, tmp_path / "RealBlur.tar.gz")
    assert prepare("realblur-j", "--source", archive, "--out", out).code == 0
    test = [f"{k}/scene244_reflect-{n}.png" for k in ("input", "target") for n in (1, 2)]
    train = [f"train/{k}/scene001-{n}.png" for k in ("input", "target") for n in (1, 2)]
    assert names(out) == sorted(test + train)
    assert pairs(dataroot_gt=str(out / "target"), dataroot_lq=str(out / "input")) == 2
    refused(prepare("realblur-r", "--source", archive, "--out", tmp_path / "R"), "DAT24")


# Noise --------------------------------------------------------------------------------------------

SCENE = "0001_001_S6_00100_00060_3200_L"


def test_sidd_frames_blocks_and_crops(prepare: Command, tmp_path: Path) -> None:
    source, out = tmp_path / "SIDD_Medium_Srgb_Parts/SIDD_Medium_Srgb", tmp_path / "SIDD"
    frames = [f"Data/{SCENE}/0001_{k}_SRGB_010.PNG" for k in ("GT", "NOISY")]
    put(source, frames, 512, 900)
    blocks = np.zeros((2, 3, 8, 8, 3), np.uint8)
    mats = [tmp_path / f"Validation{kind}BlocksSrgb.mat" for kind in ("Noisy", "Gt")]
    for file in mats:
        write_blocks(file, blocks)
    places = (source.parent, mats[0], zipped_one(mats[1]))
    assert prepare("sidd", "--source", *places, "--out", out, "--sub-images").code == 0
    crops = [
        f"train/{folder}/0001_NOISY_SRGB_010-{k}.png"
        for folder in ("input_crops", "target_crops")
        for k in (1, 2, 3)  # 900 at 512/384: 0, 384, 388
    ]
    assert names(out) == sorted([*frames, *crops, *[f"val/{file.name}" for file in mats]])
    gt, lq = out / "train/target_crops", out / "train/input_crops"
    assert pairs(dataroot_gt=str(gt), dataroot_lq=str(lq)) == 3
    data = str(out / "Data")
    assert pairs(dataroot_gt=data, dataroot_lq=data, pairing="sidd") == 1
    frame = images.read(out / frames[0])
    assert np.array_equal(images.read(gt / "0001_NOISY_SRGB_010-3.png"), frame[:, 388:])


def zipped_one(file: Path) -> Path:
    folder = file.parent / f"only_{file.stem}"
    put_file(folder / file.name, file.read_bytes())
    return zipped(folder, file.with_suffix(".zip"))


def dnd(root: Path, noisy: np.ndarray, boxes: list[list[int]]) -> Path:
    (root / "images_srgb").mkdir(parents=True)
    cells = np.empty((1, 2), object)
    cells[0, 0] = cells[0, 1] = np.array(boxes, np.float64)
    savemat(root / "info.mat", {"info": {"boundingboxes": cells}})
    savemat(root / "images_srgb/0002.mat", {"InoisySRGB": noisy.astype(np.float32)})
    return root


def test_dnd_is_cut_into_its_boxes(prepare: Command, tmp_path: Path) -> None:
    noisy = np.random.default_rng(0).random((20, 30, 3)).astype(np.float32)
    source, out = (
        dnd(tmp_path / "dnd_2017", noisy, [[1, 1, 8, 8], [13, 23, 20, 30]]),
        tmp_path / "DND",
    )
    assert prepare("dnd", "--source", source, "--out", out).code == 0
    assert names(out / "input") == ["0002_01.png", "0002_02.png"]
    last = images.read(out / "input/0002_02.png")
    assert last.dtype == np.uint16
    assert np.abs(last / 65535 - noisy[12:20, 22:30]).max() < 1 / 65535


def test_dnd_of_matlab_7_3_asks_for_h5py(
    prepare: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    source = dnd(tmp_path / "dnd_2017", np.zeros((9, 9, 3)), [[1, 1, 8, 8]])
    (source / "info.mat").write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512))
    refused(prepare("dnd", "--source", source, "--out", tmp_path / "DND"), "DEV04", "h5py", "-v7")


def test_dnd_of_matlab_7_3_with_h5py(prepare: Command, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    noisy = np.random.default_rng(0).random((20, 30, 3))
    source = tmp_path / "dnd_2017"
    (source / "images_srgb").mkdir(parents=True)
    with h5py.File(source / "info.mat", "w", userblock_size=512) as file:
        boxes = file.create_dataset("#refs#/a", data=np.array([[1, 1, 8, 8], [13, 23, 20, 30]]).T)
        kept = file.create_dataset("info/boundingboxes", (1, 1), h5py.ref_dtype)
        kept[0, 0] = boxes.ref
    with h5py.File(source / "images_srgb/0001.mat", "w", userblock_size=512) as file:
        file["InoisySRGB"] = noisy.T
    for file in source.rglob("*.mat"):
        with open(file, "r+b") as stream:
            stream.write(b"MATLAB 7.3 MAT-file")
    out = tmp_path / "DND"
    assert prepare("dnd", "--source", source, "--out", out).code == 0
    last = images.read(out / "input/0001_02.png")
    assert np.abs(last / 65535 - noisy[12:20, 22:30]).max() < 1 / 65535


# Haze ---------------------------------------------------------------------------------------------


def test_reside_parts_in_their_layouts(prepare: Command, tmp_path: Path) -> None:
    source, out = tmp_path / "down", tmp_path / "RESIDE"
    put(source, ["ITS/clear/1.png", "ITS/hazy/1_1_0.90179.png", "ITS/hazy/1_2_0.97842.png"])
    put(source, ["OTS/clear/0025.jpg", "OTS/part1/0025_0.85_0.04.jpg", "OTS/part2/0025_1_0.2.jpg"])
    put(source, ["SOTS/indoor/nyuhaze500/gt/1400.png", "SOTS/indoor/nyuhaze500/hazy/1400_1.png"])
    put(source, ["SOTS/outdoor/gt/0001.png", "SOTS/outdoor/hazy/0001_0.8_0.2.jpg"])
    assert prepare("reside", "--source", source, "--out", out).code == 0
    assert names(out) == sorted(
        [
            "ITS/clear/1.png", "ITS/hazy/1_1_0.90179.png", "ITS/hazy/1_2_0.97842.png",
            "OTS/clear/0025.jpg", "OTS/hazy/0025_0.85_0.04.jpg", "OTS/hazy/0025_1_0.2.jpg",
            "SOTS/indoor/gt/1400.png", "SOTS/indoor/hazy/1400_1.png",
            "SOTS/outdoor/gt/0001.png", "SOTS/outdoor/hazy/0001_0.8_0.2.jpg",
        ]
    )  # fmt: skip
    for gt, lq, count in (
        ("ITS/clear", "ITS/hazy", 2),
        ("OTS/clear", "OTS/hazy", 2),
        ("SOTS/indoor/gt", "SOTS/indoor/hazy", 1),
        ("SOTS/outdoor/gt", "SOTS/outdoor/hazy", 1),
    ):
        gt, lq = str(out / gt), str(out / lq)
        assert pairs(dataroot_gt=gt, dataroot_lq=lq, pairing="reside") == count


@pytest.mark.parametrize("clear", ["gt", "GT", "clear"])
def test_sots_alone_with_any_name_of_clear(prepare: Command, tmp_path: Path, clear: str) -> None:
    source = put(tmp_path / "SOTS", [f"outdoor/{clear}/0001.png", "outdoor/hazy/0001_0.8_0.2.jpg"])
    assert prepare("reside", "--source", source, "--out", tmp_path / "R").code == 0
    assert names(tmp_path / "R") == [
        "SOTS/outdoor/gt/0001.png",
        "SOTS/outdoor/hazy/0001_0.8_0.2.jpg",
    ]


@pytest.mark.parametrize("clear", ["GT", "gt"])
def test_reside_6k(prepare: Command, tmp_path: Path, clear: str) -> None:
    held = [f"{h}/{k}/7_a.png" for h in ("test", "train") for k in (clear, "hazy")]
    source, out = put(tmp_path / "down", [f"RESIDE-6K/{name}" for name in held]), tmp_path / "R"
    assert prepare("reside-6k", "--source", source, "--out", out).code == 0
    assert names(out) == [name.replace(clear, "GT") for name in held]
    assert pairs(dataroot_gt=str(out / "test/GT"), dataroot_lq=str(out / "test/hazy")) == 1


# Clean sets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("cbsd68", "CBSD68/original_png/101085.png", "HR/101085.png"),
        ("kodak24", "Kodak24/kodim01.png", "HR/kodim01.png"),
        ("kodak24", "test/Kodak/1.png", "HR/1.png"),
        ("mcmaster", "McM/1.tif", "HR/1.tif"),
        ("mcmaster", "McMaster/mcm_02.png", "HR/mcm_02.png"),
        ("wed", "exploration_database_and_code/pristine_images/00001.bmp", "HR/00001.bmp"),
        ("bsd400", "BSD400/test_001.png", "HR/test_001.png"),
        ("manga109", "Manga109/AisazuNihaIrarenai.png", "HR/AisazuNihaIrarenai.png"),
        ("urban100", "benchmark/Urban100/HR/img001.png", "HR/img001.png"),
    ],
)
def test_flat_sets(prepare: Command, tmp_path: Path, name: str, source: str, expected: str) -> None:
    put(tmp_path / "down", [source, "Another/1.txt.png"])
    assert prepare(name, "--source", tmp_path / "down", "--out", tmp_path / "out").code == 0
    assert [n for n in names(tmp_path / "out") if not n.startswith("LR")] == [expected]


def test_dfwb_is_the_four_in_one_folder(prepare: Command, tmp_path: Path) -> None:
    source, out = div2k(tmp_path / "down"), tmp_path / "DFWB"
    put(source, ["Flickr2K/Flickr2K_HR/000001.png", "WED/00001.bmp"])
    put(source, [f"BSDS500/data/images/{n}.jpg" for n in ("train/12003", "val/3096", "test/2018")])
    assert prepare("dfwb", "--source", source, "--out", out).code == 0
    assert names(out) == sorted(
        ["0001.png", "0800.png", "000001.png", "00001.bmp", "12003.jpg", "2018.jpg"]
    )
    parts = {name: part.name for name in names(out) if (part := SETS["dfwb"].part_of(name))}
    assert [parts[n] for n in ("0001.png", "000001.png", "00001.bmp", "2018.jpg")] == [
        "DIV2K", "Flickr2K", "WED", "BSD400",
    ]  # fmt: skip


@pytest.mark.parametrize("name", list(SETS))
def test_nothing_of_a_set_is_said_so(prepare: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / "down").mkdir()
    (tmp_path / "down/readme.txt").write_text("nothing here")
    (tmp_path / "down/set.rar").write_bytes(b"Rar!")
    answer = prepare(name, "--source", tmp_path / "down", "--out", tmp_path / "out")
    refused(answer, "DAT24", "unpack set.rar", SETS[name].title)
    assert not (tmp_path / "out").exists()
