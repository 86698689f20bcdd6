"""Floor 3. Super-resolution: DIV2K, Flickr2K, and the five test sets in the layouts people have.

The official LR files are MATLAB's bicubic, to the byte, so what is missing is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from restore.data.prepare.records import (
    PNG,
    SUFFIX,
    Arrange,
    Bicubic,
    Finding,
    Look,
    Pair,
    Part,
    Placed,
    Record,
    Rule,
    Tiles,
    Version,
    by_rules,
    flat,
    placed,
)
from restore.data.prepare.source import Member, Source
from restore.image_headers import kind_of, size_of

SCALES = (2, 3, 4)
CROP, STEP, MULTIPLE = 480, 240, 12  # sides of DIV2K's HR are multiples of 12
TAG = "x{}"  # what the name of an LR has behind that of its HR


def _pairs(hr: str, lr: str, *, training: bool = False) -> list[Pair]:
    """HR with each LR; `{}` in `lr` is the scale."""
    kind = Pair(hr, lr, bicubic="bicubic" in lr, training=training)
    return [
        replace(kind, lq=lr.format(s), scale=s, filename_tmpl="{}" + TAG.format(s)) for s in SCALES
    ]


def _lr_parts(lr: str, count: int) -> list[Part]:
    return [Part(lr.format(s), flat(lr.format(s)), count) for s in SCALES]


def _sub_images(hr: str, lr: str) -> tuple[list[Tiles], list[Part], list[Pair]]:
    """How HR and LR of a training set are cut (BasicSR's folders and names), counted, paired."""
    name = "{id}_s{k:03d}.png"
    tiles = [Tiles(flat(hr), f"{hr}_sub/{name}", CROP, STEP, 1, MULTIPLE)]
    parts, pairs = [Part(f"{hr}_sub", flat(f"{hr}_sub"))], []
    for scale in SCALES:
        folder = lr.format(scale)
        pattern = rf"{folder}/(?P<id>[^/]+){TAG.format(scale)}{SUFFIX}"
        tiles.append(Tiles(pattern, f"{folder}_sub/{name}", CROP, STEP, scale, MULTIPLE))
        parts.append(Part(f"{folder}_sub", flat(f"{folder}_sub")))
        pairs.append(Pair(f"{hr}_sub", f"{folder}_sub", scale, training=True))
    return tiles, parts, pairs


def _lr_of(hr: str, lr: str) -> Bicubic:
    return Bicubic(flat(hr), lr.replace("{}", "{scale}") + "/{id}x{scale}.png", SCALES)


_DIV2K = "DIV2K_{}_HR", "DIV2K_{}_LR_bicubic/X{{}}"
_HR, _LR = (text.format("train") for text in _DIV2K)
_VALID_HR, _VALID_LR = (text.format("valid") for text in _DIV2K)
_TILES, _TILE_PARTS, _TILE_PAIRS = _sub_images(_HR, _LR)

DIV2K = Record(
    title="DIV2K",
    folder="datasets/DIV2K",
    licence="academic research only",
    origin="the DIV2K page of the NTIRE challenges: DIV2K_{train,valid}_HR.zip, and the LR zips",
    expected="DIV2K_train_HR/0001.png, DIV2K_train_LR_bicubic/X2/0001x2.png, and valid likewise",
    arrange=by_rules(
        (rf"(?P<set>DIV2K_(?:train|valid)_HR)/(?P<id>\d{{4}}){PNG}", "{set}/{id}.png"),
        (
            rf"(?P<set>DIV2K_(?:train|valid)_LR_(?:bicubic|unknown))/X(?P<s>[234])"
            rf"/(?P<id>\d{{4}})x(?P=s){PNG}",
            "{set}/X{s}/{id}x{s}.png",
        ),
    ),
    parts=(
        Part(_HR, flat(_HR), 800, split="train"),
        Part(_VALID_HR, flat(_VALID_HR), 100, split="test"),
        *_lr_parts(_LR, 800),
        *_lr_parts(_VALID_LR, 100),
        *_lr_parts("DIV2K_train_LR_unknown/X{}", 800),
        *_lr_parts("DIV2K_valid_LR_unknown/X{}", 100),
        *_TILE_PARTS,
    ),
    pairs=(
        *_pairs(_HR, _LR, training=True),
        *_pairs(_VALID_HR, _VALID_LR),
        *_pairs(_HR, "DIV2K_train_LR_unknown/X{}", training=True),
        *_pairs(_VALID_HR, "DIV2K_valid_LR_unknown/X{}"),
        *_TILE_PAIRS,
    ),
    bicubic=(_lr_of(_HR, _LR), _lr_of(_VALID_HR, _VALID_LR)),
    tiles=tuple(_TILES),
    about="32592 sub-images at the default 480/240",
)

_DF_HR, _DF_LR = "HR", "LR_bicubic/X{}"
_DF_TILES, _DF_TILE_PARTS, _DF_TILE_PAIRS = _sub_images(_DF_HR, _DF_LR)
_TWO = rf"(?:DIV2K_train_|DF2K/|Flickr2K_)LR_bicubic/X(?P<s>[234])/(?P<id>\d+)x(?P=s){PNG}"

DF2K = Record(
    title="DF2K",
    folder="datasets/DF2K",
    licence="DIV2K: academic research only; Flickr2K: images from Flickr, no licence of its own",
    origin="DIV2K as above, and Flickr2K.tar from the page of EDSR or NTIRE 2017",
    expected="DIV2K_train_HR/0001.png and Flickr2K/Flickr2K_HR/000001.png, and LR_bicubic likewise",
    arrange=by_rules(
        (rf"(?:DIV2K_train_|DF2K/|Flickr2K_)HR/(?P<id>\d+){PNG}", "HR/{id}.png"),
        (_TWO, "LR_bicubic/X{s}/{id}x{s}.png"),
    ),
    parts=(
        Part("HR/ of DIV2K", rf"{_DF_HR}/\d{{4}}{PNG}", 800, split="train"),
        Part("HR/ of Flickr2K", rf"{_DF_HR}/\d{{6}}{PNG}", 2650, split="train"),
        *_lr_parts(_DF_LR, 3450),
        *_DF_TILE_PARTS,
    ),
    pairs=(*_pairs(_DF_HR, _DF_LR, training=True), *_DF_TILE_PAIRS),
    bicubic=(_lr_of(_DF_HR, _DF_LR),),
    tiles=tuple(_DF_TILES),
    about="3450 = 800 + 2650; DIV2K's validation images are left out, as they are tested on",
)

# Test sets ----------------------------------------------------------------------------------------

_ALIASES = {  # as folders and archives are called, without what follows a _ or -
    "Set5": ("set5",),
    "Set14": ("set14",),
    "B100": ("b100", "bsd100", "bsds100"),
    "Urban100": ("urban100",),
    "Manga109": ("manga109",),
}
_EDSR_HR: Rule = (rf"HR/(?P<id>[^/]+){SUFFIX}", "HR/{id}.{suffix}")
_BASICSR_HR: Rule = (rf"(?:GTmod\d+|GT|original)/(?P<id>[^/]+){SUFFIX}", "HR/{id}.{suffix}")
_HR_RULES = (_EDSR_HR, _BASICSR_HR)
_LR_RULES: tuple[Rule, ...] = (
    # Some packs have LR without its tag: MaIR's, and BasicSR's LRbicx2.
    (
        rf"LR_bicubic/X(?P<s>[234])/(?P<id>[^/]+?)(?:x(?P=s))?{SUFFIX}",
        "LR_bicubic/X{s}/{id}x{s}.{suffix}",
    ),
    (rf"LRbicx(?P<s>[234])/(?P<id>[^/]+?){SUFFIX}", "LR_bicubic/X{s}/{id}x{s}.{suffix}"),
    (
        rf"LRBI/(?:[^/]+/)?x(?P<s>[234])/(?P<id>[^/]+)_LRBI_x(?P=s){SUFFIX}",
        "LR_bicubic/X{s}/{id}x{s}.{suffix}",
    ),
)
# HR cut to multiples of each scale: of these the largest is taken, and the LR are made.
_PER_SCALE_RULES: tuple[Rule, ...] = (
    (rf"image_SRF_(?P<s>[234])/(?P<id>[^/]+)_SRF_(?P=s)_HR{SUFFIX}", "HR/{id}.{suffix}"),
    (rf"HR/(?:[^/]+/)?x(?P<s>[234])/(?P<id>[^/]+)_HR_x(?P=s){SUFFIX}", "HR/{id}.{suffix}"),
)
_FLAT: Rule = (rf"(?P<id>[^/]+){SUFFIX}", "HR/{id}.{suffix}")


def _test_set(name: str, extra: tuple[Rule, ...] = ()) -> Arrange:
    def arrange(source: Source, variant: str) -> Iterator[Placed]:
        members = _of_set(source.members, name, extra)
        yield from placed(members, _LR_RULES)
        hr = list(placed(members, (*_HR_RULES, *extra)))
        hr = hr or _largest(source, placed(members, _PER_SCALE_RULES))
        yield from hr or placed([m for m in members if not _is_lr(m)], (_FLAT,))

    return arrange


def _of_set(members: Sequence[Member], name: str, extra: tuple[Rule, ...]) -> list[Member]:
    """Those under a folder with the set's name; if there are none, those under no other set's."""

    def named(member: Member, aliases: tuple[str, ...]) -> bool:
        folders = member.path.lower().split("/")[:-1]
        return any(re.split(r"[_\-. ]", folder)[0] in aliases for folder in folders)

    ours = [member for member in members if named(member, _ALIASES[name])]
    ours += [member for member, _ in placed(members, extra) if member not in ours]
    others = tuple(alias for aliases in _ALIASES.values() for alias in aliases)
    return ours or [member for member in members if not named(member, others)]


def _is_lr(member: Member) -> bool:
    """Whether a path looks like LR, or like an image that some method restored."""
    return re.search(r"(?i)(^|[/_])(LR|x\d|SRF)", member.path.partition("/")[2]) is not None


def _largest(source: Source, found: Iterator[Placed]) -> list[Placed]:
    """Of each image the one with the most pixels: Urban100's image_SRF_2 has half the size of
    image_SRF_4, and elsewhere the smallest multiple cuts least."""
    best: dict[str, tuple[int, Member]] = {}
    for member, target in found:
        data = source.read(member)
        height, width = size_of(kind_of(data, member.path), data, member.path)
        if height * width > best.get(target, (0, member))[0]:
            best[target] = (height * width, member)
    return [(member, target) for target, (_, member) in best.items()]


def _halved(root: Path, looks: Mapping[str, Look]) -> Iterator[Finding]:
    """Urban100's trap: the HR of SelfExSR's image_SRF_2 are half as large as the images."""
    sides = [max(look.size) for path, look in looks.items() if path.startswith("HR/")]
    longest = max(sides, default=0)
    if longest:
        half = longest <= 512
        found = f"long side {longest}" + (": the half-size HR of image_SRF_2" if half else "")
        yield Finding("version", "HR", found, "long side 1024", half)


def _gray(root: Path, looks: Mapping[str, Look]) -> Iterator[Finding]:
    """Set14's bridge is gray; networks of 3 channels are given it thrice."""
    gray = [path for path, look in looks.items() if path.startswith("HR/") and look.channels == 1]
    if gray:
        yield Finding("version", "HR", f"gray: {', '.join(gray)}", "bridge is")


def _benchmark(
    name: str,
    count: int,
    licence: str,
    *,
    extra: tuple[Rule, ...] = (),
    versions: tuple[Version, ...] = (),
    about: str = "",
) -> Record:
    lr = "LR_bicubic/X{}"
    return Record(
        title=name,
        folder=f"datasets/{name}",
        licence=licence,
        origin="the benchmark packs of EDSR, SwinIR, BasicSR, RCAN or SelfExSR",
        expected=f"{name}/HR/…png with LR_bicubic/X2/…x2.png, or GTmod12 with LRbicx2, or "
        "image_SRF_2/…_SRF_2_HR.png, or HR/x2/…_HR_x2.png, or the images alone",
        arrange=_test_set(name, extra),
        parts=(Part("HR", flat("HR"), count, split="test"), *_lr_parts(lr, count)),
        pairs=tuple(_pairs("HR", lr)),
        bicubic=(_lr_of("HR", lr),),
        versions=versions,
        about=about,
    )


_BSDS_VAL: Rule = (rf"BSDS500/(?:data/)?images/val/(?P<id>[^/]+){SUFFIX}", "HR/{id}.{suffix}")
BENCHMARKS = {
    "set5": _benchmark("Set5", 5, "none stated; used in research"),
    "set14": _benchmark("Set14", 14, "none stated; used in research", versions=(_gray,)),
    "b100": _benchmark(
        "B100", 100, "BSDS500: research and education only", extra=(_BSDS_VAL,),
        about="the 100 images of BSDS500's val folder, which is taken as a source too",
    ),
    "urban100": _benchmark("Urban100", 100, "images from Flickr, CC", versions=(_halved,)),
    "manga109": _benchmark("Manga109", 109, "academic, on request; no redistribution"),
}  # fmt: skip
