"""Floor 3. The demo set: real images that ship inside the scikit-image wheel; nothing downloaded.

    DIV2K/DIV2K_train_HR/0001.png …        DIV2K/DIV2K_train_LR_bicubic/X2/0001x2.png …
    DIV2K/DIV2K_valid_HR/0801.png          DIV2K/DIV2K_valid_LR_bicubic/X2/0801x2.png
    benchmark/DemoTest/HR/chelsea.png …    benchmark/DemoTest/LR_bicubic/X2/chelseax2.png …
    GOPRO_Large  SIDD_Medium_Srgb  ITS  SOTS               blurred, noisy and hazy: see demo_pairs
    MANIFEST.json                          sha256 of the pixels, shape and origin of every image

Split at image level: no test image, nor another view of its scene, is trained on.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restore import images
from restore.data.blocks import read_blocks, write_blocks
from restore.data.prepare.demo_pairs import BLOCKS_SHAPE, PATHS, Named, make_pairs
from restore.errors import DataError
from restore.ops.resize import imresize

SCALES = (2, 3, 4)
MULTIPLE = 12  # sides are cut to it, so that every scale divides them


@dataclass(frozen=True)
class Origin:
    """A file in skimage/data: its checksum, whether to halve it (JPEG blocks), where it goes."""

    file: str
    sha256: str  # first 12 digits
    folder: str
    name: str
    halve: bool = False


_TRAIN, _VALID, _TEST = "DIV2K/DIV2K_train", "DIV2K/DIV2K_valid", "benchmark/DemoTest"
ORIGINS = (
    Origin("astronaut.png", "88431cd9653c", _TRAIN, "0001"),
    Origin("rocket.jpg", "c2dd0de7c538", _TRAIN, "0002", halve=True),
    Origin("hubble_deep_field.jpg", "3a19c5dd8a92", _TRAIN, "0003"),
    Origin("retina.jpg", "38a07f36f27f", _TRAIN, "0004", halve=True),
    Origin("ihc.png", "f8dd1aa387dd", _TRAIN, "0005"),
    Origin("brick.png", "7966caf324f6", _TRAIN, "0006"),
    Origin("grass.png", "b6b6022426b3", _TRAIN, "0007"),
    Origin("gravel.png", "c48615b451bf", _TRAIN, "0008"),
    Origin("coffee.png", "cc02f8ca188b", _VALID, "0801"),
    Origin("chelsea.png", "596aa1e7cb87", _TEST, "chelsea"),
    Origin("motorcycle_left.png", "db18e9c41576", _TEST, "motorcycle_left"),
)
DISPARITY = Origin("motorcycle_disp.npz", "2e49c8cebff3", "", "")


def prepare(folder: Path) -> str:
    """Make the demo set in `folder`, or find it whole there; returns a line to print.

    A damaged demo set is made anew. Raises DataError when scikit-image's files are not the known
    ones, or when `folder` holds anything else, which is left alone.
    """
    if (folder / "MANIFEST.json").is_file() and not _faults(folder):
        return f"{folder}: already there, {len(ORIGINS)} images, checksums match"
    strange = _stranger(folder)
    if strange is not None:
        raise DataError.of(
            "DAT16",
            "the folder holds something else",
            str(folder),
            strange,
            "an empty or new folder",
            "choose another --out",
        )
    place = folder.resolve()  # `.` has no name
    working = place.with_name(f".{place.name}.tmp")
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(parents=True)
    manifest: dict[str, dict[str, object]] = {}
    for relative, image, facts in _contents():
        target = working / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        write = write_blocks if target.suffix == ".mat" else images.write
        write(target, image)
        manifest[relative] = _entry(image) | facts
    (working / "MANIFEST.json").write_text(json.dumps(manifest, indent=2) + "\n")
    shutil.rmtree(place, ignore_errors=True)
    working.rename(place)
    pairs = "blurred, noisy and hazy pairs of them"
    return f"{folder}: {len(ORIGINS)} images and their LR at ×2, ×3, ×4; {pairs}"


def _stranger(folder: Path) -> str | None:
    """What in `folder` we would not have written, so that only our own files are ever replaced."""
    if not folder.exists():
        return None
    if not folder.is_dir():
        return "a file"
    held = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()]
    if held and "MANIFEST.json" not in held:
        return "files without a MANIFEST.json of ours"
    ours = {"MANIFEST.json", *_all_names()}
    return next((name for name in sorted(held) if name not in ours), None)


def _all_names() -> list[str]:
    """The paths of all files but the manifest, in its order."""
    return [name for origin in ORIGINS for name in _names(origin)] + list(PATHS)


def _contents() -> Iterator[Named]:
    """All files but the manifest, in its order: path, image, and what the manifest says of it."""
    whole: dict[str, np.ndarray] = {}
    for origin in ORIGINS:
        layout = _layout(origin)
        whole[Path(origin.file).stem] = layout[0][1]
        for relative, image in layout:
            yield relative, image, {"origin": f"scikit-image: {origin.file}"}
    with np.load(_source(DISPARITY), allow_pickle=False) as held:
        disparity = held["arr_0"]
    yield from make_pairs(whole, disparity)


def _names(origin: Origin) -> list[str]:
    """The paths of the HR and of every LR of one origin, in DIV2K's or the benchmarks' names."""
    test = origin.folder == _TEST
    hr = f"{origin.folder}/HR" if test else f"{origin.folder}_HR"
    lr = f"{origin.folder}/LR_bicubic" if test else f"{origin.folder}_LR_bicubic"
    small = [f"{lr}/X{scale}/{origin.name}x{scale}.png" for scale in SCALES]
    return [f"{hr}/{origin.name}.png", *small]


def _layout(origin: Origin) -> list[tuple[str, np.ndarray]]:
    """(path, image) of the HR and every LR of one origin."""
    image = images.as_rgb(images.read(_source(origin)))
    if origin.halve:
        image = imresize(image, 0.5)
    height, width = (side - side % MULTIPLE for side in image.shape[:2])
    image = image[:height, :width]
    small = [imresize(image, 1 / scale) for scale in SCALES]
    return list(zip(_names(origin), [image, *small], strict=True))


def _source(origin: Origin) -> Path:
    package = importlib.util.find_spec("skimage")  # found, not imported: that takes a second
    folder = Path(package.origin).parent / "data" if package and package.origin else Path("?")
    file = folder / origin.file
    found = hashlib.sha256(file.read_bytes()).hexdigest()[:12] if file.is_file() else "nothing"
    if found != origin.sha256:
        raise DataError.of(
            "DAT17",
            "a demo image is not the known one",
            str(file),
            f"sha256 {found}…",
            f"sha256 {origin.sha256}…",
            "pip install --force-reinstall 'scikit-image>=0.22,<0.27'",
        )
    return file


def _entry(image: np.ndarray) -> dict[str, object]:
    digest = hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()
    return {"shape": list(image.shape), "pixels_sha256": digest}


def _read(file: Path) -> np.ndarray:
    return read_blocks(file, BLOCKS_SHAPE) if file.suffix == ".mat" else images.read(file)


def _faults(folder: Path) -> list[str]:
    """The files that are not as the manifest says."""
    try:
        manifest = json.loads((folder / "MANIFEST.json").read_text())
    except ValueError:
        return ["MANIFEST.json"]
    if not isinstance(manifest, dict) or list(manifest) != _all_names():
        return ["MANIFEST.json"]
    wrong = []
    for relative, entry in manifest.items():
        try:
            found = _entry(_read(folder / relative))
        except DataError:
            found = {}
        if not isinstance(entry, dict) or not found.items() <= entry.items() or not found:
            wrong.append(relative)
    return wrong
