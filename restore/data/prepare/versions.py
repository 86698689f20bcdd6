"""Floor 3. Which version of a set this is: told from names, counts, sizes and, for GoPro's two
blurs, from the light in the pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from restore import images
from restore.data.blocks import BLOCK_FILES, shape_of_blocks
from restore.data.prepare.ledger import read_manifest
from restore.data.prepare.records import Finding, Look
from restore.errors import DataError

Looks = Mapping[str, Look]
GAMMA = 2.2
PAIRS_LOOKED_AT = 24
REAL_BLOCKS = (40, 32, 256, 256, 3)
TEST_SEQUENCES = {
    "GOPR0384_11_00": 100, "GOPR0384_11_05": 100, "GOPR0385_11_01": 100, "GOPR0396_11_00": 100,
    "GOPR0410_11_00": 134, "GOPR0854_11_00": 100, "GOPR0862_11_00": 77, "GOPR0868_11_00": 100,
    "GOPR0869_11_00": 100, "GOPR0871_11_00": 100, "GOPR0881_11_01": 100,
}  # fmt: skip


def gopro_sequences(root: Path, looks: Looks) -> Iterator[Finding]:
    """The eleven test sequences and their lengths; none of them may be trained on."""
    seen = {half: Counter[str]() for half in ("train", "test")}
    for path in looks:
        half, _, rest = path.partition("/")
        if half in seen and rest.split("/")[1:2] == ["sharp"]:
            seen[half][rest.split("/")[0]] += 1
    if seen["test"]:
        short = [s for s, n in TEST_SEQUENCES.items() if s in seen["test"] and seen["test"][s] < n]
        absent = [s for s in TEST_SEQUENCES if s not in seen["test"]]
        strange = [s for s in seen["test"] if s not in TEST_SEQUENCES]
        kinds = ("cut short", short), ("absent", absent), ("unknown", strange)
        said = [f"{kind} {len(names)}: {names[0]}" for kind, names in kinds if names]
        found = f"{len(seen['test'])} sequences" + "".join(f", {text}" for text in said)
        yield Finding("version", "test", found, "the 11 official ones, whole")
    leaked = sorted(set(seen["train"]) & (set(TEST_SEQUENCES) | set(seen["test"])))
    if leaked:
        yield Finding("version", "train", f"test sequences {', '.join(leaked)}", "none", True)


def blur_version(root: Path, looks: Looks) -> Iterator[Finding]:
    """`blur` or `blur_gamma`: averaging keeps the mean of what is averaged, and the sharp image is
    one of the averaged ones. In `blur` that is the mean of the stored values, in `blur_gamma` of
    the linear light, whose average looks brighter than the stored ones' by the variance over time.
    """
    held = read_manifest(root)
    chosen = held["variant"] if held else ""
    for half in ("train", "test"):
        blurred = sorted(p for p in looks if p.startswith(half + "/") and "/blur/" in p)
        blurred = [p for p in blurred if p.replace("/blur/", "/sharp/") in looks]
        stored, linear = [], []
        for path in spread(blurred, PAIRS_LOOKED_AT):
            blur = _light(root / path)
            sharp = _light(root / path.replace("/blur/", "/sharp/"))
            stored.append(float(blur.mean() - sharp.mean()))
            linear.append(float((blur**GAMMA).mean() - (sharp**GAMMA).mean()))
        if stored:
            # Under `blur` the stored means agree and the light is lost; under `blur_gamma` the
            # light agrees and the stored mean is higher. Medians, as scenes move in and out.
            higher, darker = float(np.median(stored)), -float(np.median(linear))
            kind = "blur_gamma" if higher > darker else "blur"
            sure = max(abs(higher), abs(darker)) > 2 * min(abs(higher), abs(darker))
            levels = f"stored mean {255 * higher:+.2f} levels"
            found = f"looks like {kind}" + ("" if sure else ", not surely") + f" ({levels})"
            wrong = sure and bool(chosen) and kind != chosen
            yield Finding("version", half, found, chosen or "blur or blur_gamma", wrong)


def _light(file: Path) -> np.ndarray:
    image = images.read(file)
    return image.astype(np.float32) / np.iinfo(image.dtype).max


def spread(paths: list[str], count: int) -> list[str]:
    """At most `count` of the paths, evenly spread."""
    if len(paths) <= count:
        return paths
    return [paths[k * len(paths) // count] for k in range(count)]


def sidd_blocks(root: Path, looks: Looks) -> Iterator[Finding]:
    """The validation blocks: two files of one shape."""
    noisy, clean = (root / "val" / name for name in BLOCK_FILES)
    if not noisy.exists() and not clean.exists():
        return
    try:
        shape = shape_of_blocks(noisy, clean, channels=3)
    except DataError as error:
        yield Finding("blocks", "val", error.problems[0].got, error.problems[0].expected, True)
        return
    found, real = ("x".join(map(str, sides)) for sides in (shape, REAL_BLOCKS))
    yield Finding("blocks", "val", found, real, shape != REAL_BLOCKS)


def reside_version(root: Path, looks: Looks) -> Iterator[Finding]:
    """OTS has two sizes; SOTS indoor's clear images come cut and uncut."""
    count = Counter(path.rpartition("/")[0] for path in looks)
    clear, hazy = count["OTS/clear"], count["OTS/hazy"]
    if clear or hazy:
        known = {(2061, 72135): "beta", (8970, 313950): "extended"}
        name = known.get((clear, hazy))
        whole = "2061 and 72135 (beta), or 8970 and 313950 (extended)"
        found = f"{clear} clear, {hazy} hazy: {name or 'neither version, whole'}"
        yield Finding("version", "OTS", found, whole, None if name else True)
    gt = Counter(look.size for path, look in looks.items() if path.startswith("SOTS/indoor/gt/"))
    if gt:
        height, width = gt.most_common(1)[0][0]
        as_hazy = (height, width) == (460, 620)
        found = f"{width}x{height}, {'cut to the hazy ones' if as_hazy else 'as commonly packed'}"
        yield Finding("version", "SOTS/indoor/gt", found, "640x480 or 620x460")
    outdoor = count["SOTS/outdoor/gt"]
    if outdoor:
        yield Finding("version", "SOTS/outdoor/gt", str(outdoor), "492")


def kodak_version(root: Path, looks: Looks) -> Iterator[Finding]:
    """The originals, or FFDNet's middles of them."""
    sizes = {tuple(sorted(look.size)) for look in looks.values()}
    if sizes == {(500, 500)}:
        yield Finding("version", "Kodak24", "500x500: FFDNet's pack, as in denoising tables")
    elif sizes == {(512, 768)}:
        yield Finding("version", "Kodak24", "768x512: the originals, unlike in denoising tables")
    elif sizes:
        found = ", ".join(f"{w}x{h}" for h, w in sorted(sizes)[:3])
        yield Finding("version", "Kodak24", found, "500x500, or 768x512", True)
