"""Floor 3. Deblurring: GoPro, HIDE and RealBlur, as they come and as others have packed them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from restore.data.prepare.records import (
    PNG,
    Pair,
    Part,
    Placed,
    Record,
    Tiles,
    flat,
    layout,
    placed,
)
from restore.data.prepare.source import Member, Source
from restore.data.prepare.versions import blur_version, gopro_sequences
from restore.errors import DataError

HD = ((720, 1280),)
_SEQ, _FRAME = r"(?P<seq>GOPR\d+_\d+_\d+)", r"(?P<frame>\d+)"
_HALF = r"(?P<half>train|test)"
_PLACE = "{{half}}/{{seq}}/{}/{{frame}}.png"
_SHARP, _BLUR = _PLACE.format("sharp"), _PLACE.format("blur")


def _gopro(source: Source, variant: str) -> Iterator[Placed]:
    """The official tree with the chosen blur, or a re-pack, which has no choice to offer.

    A variant other than `blur` takes nothing from re-packs: they were made of `blur`.
    """
    own = rf"{_HALF}/(?P<seq>[^/]+)/{{}}/{_FRAME}{PNG}"
    rules = [(own.format("sharp"), _SHARP), (own.format(variant), _BLUR)]
    packed = rf"{_HALF}/(?:[^/]+/)?{{}}/{_SEQ}[-_]{_FRAME}{PNG}"
    if variant == "blur":
        rules += [
            (packed.format("(?:sharp|target)"), _SHARP),
            (packed.format("(?:blur|input)"), _BLUR),
        ]
    return placed(source.members, rules)


def _frames(half: Literal["train", "test"], count: int) -> tuple[Part, Part]:
    pattern = rf"{half}/[^/]+/{{}}/\d+{PNG}"
    return (
        Part(f"{half}/SEQ/blur", pattern.format("blur"), count, HD),
        Part(f"{half}/SEQ/sharp", pattern.format("sharp"), count, HD, half),
    )


def _crops(kind: str, folder: str) -> Tiles:
    pattern = rf"train/(?P<seq>[^/]+)/{kind}/{_FRAME}{PNG}"
    return Tiles(pattern, f"train/{folder}/{{seq}}-{{frame}}-{{k}}.png", 512, 256)


GOPRO = Record(
    title="GoPro",
    folder="datasets/GOPRO_Large",
    licence="CC BY 4.0",
    origin="the page of Nah et al., Deep Multi-scale CNN (CVPR 2017): GOPRO_Large.zip",
    expected="{train,test}/GOPR…/{blur,blur_gamma,sharp}/000001.png, or {train,test}/{blur,sharp} "
    "or {train,test}/{input,target} with GOPR…_000001.png or GOPR…-000001.png",
    arrange=_gopro,
    parts=(
        *_frames("train", 2103),
        *_frames("test", 1111),
        Part("train/input_crops", flat("train/input_crops")),
        Part("train/target_crops", flat("train/target_crops")),
    ),
    pairs=(
        Pair("train", "train", pairing="gopro"),
        Pair("test", "test", pairing="gopro"),
        Pair("train/target_crops", "train/input_crops"),
    ),
    tiles=(_crops("blur", "input_crops"), _crops("sharp", "target_crops")),
    variants=("blur", "blur_gamma"),
    versions=(gopro_sequences, blur_version),
    about="the tables of MPRNet, HINet, DMPHN and MIMO-UNet are of blur, Nah et al. of blur_gamma; "
    "16824 sub-images at the default 512/256",
)


def _hide(source: Source, variant: str) -> Iterator[Placed]:
    """Official: all sharp images in one folder, to be parted as the blurry ones are."""
    name = rf"(?P<name>[^/]+){PNG}"
    found = list(
        placed(
            source.members,
            (
                (rf"train/input/{name}", "train/input/{name}.png"),
                (rf"train/target/{name}", "train/target/{name}.png"),
                (rf"input/{name}", "input/{name}.png"),
                (rf"target/{name}", "target/{name}.png"),
                (rf"train/(?:[^/]+/)?{name}", "train/input/{name}.png"),
                (rf"test/(?:[^/]+/)?{name}", "input/{name}.png"),
                (rf"(?:GT|sharp)/{name}", "GT/{name}.png"),
            ),
        )
    )
    trained = {target.rpartition("/")[2] for _, target in found if target.startswith("train/input")}
    for member, target in found:
        folder, _, file = target.rpartition("/")
        if folder == "GT":
            folder = "train/target" if file in trained else "target"
        yield member, f"{folder}/{file}"


HIDE = Record(
    title="HIDE",
    folder="datasets/HIDE",
    licence="not stated in what we have; see its page",
    origin="the page of Shen et al., Human-Aware Motion Deblurring (ICCV 2019), or a re-pack",
    expected="HIDE_dataset/{train,test/{test-close-ups,test-long-shot},GT}, or {input,target}",
    arrange=_hide,
    parts=(
        Part("input", flat("input"), 2025, HD),
        Part("target", flat("target"), 2025, HD, "test"),
        Part("train/input", flat("train/input"), 6397, HD),
        Part("train/target", flat("train/target"), 6397, HD, "train"),
    ),
    pairs=(Pair("target", "input"), Pair("train/target", "train/input")),
    about="tables test networks on it that were trained on GoPro",
)


_KINDS = ("input", "target")


def _realblur(letter: str) -> Record:
    long = f"RealBlur-{letter}_" + ("BM3D_" if letter == "R" else "") + "ECC_IMCORR_centroid"

    def arrange(source: Source, variant: str) -> Iterator[Placed]:
        name = rf"(?P<name>[^/]+){PNG}"
        packed = [(rf"RealBlur_{letter}/(?:test/)?{k}/{name}", k + "/{name}.png") for k in _KINDS]
        packed += [
            (rf"RealBlur_{letter}/train/{k}/{name}", f"train/{k}/{{name}}.png") for k in _KINDS
        ]
        yield from placed(source.members, packed)
        folder = rf"{long}[^/]*/(?P<scene>scene[^/]+)/{{0}}/{{0}}_(?P<shot>\d+){PNG}"
        scenes = list(
            placed(
                source.members,
                (
                    (folder.format("gt"), "target/{scene}-{shot}.png"),
                    (folder.format("blur"), "input/{scene}-{shot}.png"),
                ),
            )
        )
        lists = _lists(source, letter) if scenes else {}
        for member, target in scenes:
            half = lists.get(target.rpartition("/")[2].replace("_reflect", ""))
            if half is not None:
                yield member, half + target

    return Record(
        title=f"RealBlur-{letter}",
        folder=f"datasets/RealBlur_{letter}",
        licence="CC BY 4.0",
        origin="the page of Rim et al., Real-World Blur Dataset (ECCV 2020): RealBlur.tar.gz",
        expected=f"{long}…/scene001/{{blur/blur_1.png,gt/gt_1.png}} with "
        f"RealBlur_{letter}_{{train,test}}_list.txt, or RealBlur_{letter}/{{input,target}}",
        arrange=arrange,
        parts=(
            Part("input", flat("input"), 980),
            Part("target", flat("target"), 980, split="test"),
            Part("train/input", flat("train/input"), 3758),
            Part("train/target", flat("train/target"), 3758, split="train"),
        ),
        pairs=(Pair("target", "input"), Pair("train/target", "train/input")),
        about="sizes vary; published scores align the output to the sharp image first",
    )


def _lists(source: Source, letter: str) -> dict[str, str]:
    """`scene001-1.png` -> `` for the test list, `train/` for the other. Raises DataError DAT24."""
    halves: dict[str, str] = {}
    read = 0
    for half, prefix in (("train", "train/"), ("test", "")):
        wanted = layout(rf"RealBlur_{letter}_{half}_list\.txt")
        for member in [m for m in source.members if wanted.search(m.path)][:1]:
            read += 1
            for line in _lines(source, member):
                for scene, shot in re.findall(r"/(scene[^/]+)/(?:gt|blur)/\w+_(\d+)\.png", line):
                    halves[f"{scene}-{shot}.png".replace("_reflect", "")] = prefix
    if read < 2:
        raise DataError.of(
            "DAT24",
            f"nothing tells RealBlur-{letter}'s train images from its test images",
            "--source",
            f"{read} of 2 lists",
            f"RealBlur_{letter}_train_list.txt and RealBlur_{letter}_test_list.txt",
            "add the lists of the download, or give the re-pack with input and target",
        )
    return halves


def _lines(source: Source, member: Member) -> list[str]:
    return source.read(member).decode("utf-8", "replace").splitlines()


REALBLUR_J, REALBLUR_R = _realblur("J"), _realblur("R")
