"""What scripts/fuzz.py fuzzes: readers of files from elsewhere, right files, and right answers.

A target's input is a few named parts, so that a mutation stays inside one of them, and a reader is
not kept out by sums: the part `how` says, in its first byte, whether checksums are made right for
the others first. Each target writes a file or a folder, reads it as a command does, and asserts
what must hold of whatever was read. RestoreError is a right answer, anything else is a find.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import savemat

from restore import images
from restore.commands.check import tree_of_file
from restore.commands.shared import read_tree
from restore.data.blocks import BLOCK_FILES, read_blocks, shape_of_blocks
from restore.data.prepare import dnd
from restore.data.prepare.source import Source
from restore.data.stores.lmdb_store import META
from restore.metrics.niqe import FEATURES, NiqeModel
from restore.options import override, read_document
from restore.options_yaml import dump
from restore.recipes.bench_trees import BenchTree, check_bench

from fuzz_parts import (
    MAX_PIXELS,
    PICTURES,
    SEALED,
    Parts,
    Target,
    bits,
    written,
)
from fuzz_stores import (
    CHECKPOINT_PARTS,
    PACK_PARTS,
    SHARDS_PARTS,
    checkpoint_seeds,
    lmdb_seeds,
    pack_seeds,
    read_checkpoint,
    read_lmdb,
    read_pack,
    read_shards,
    read_weights_file,
    shards_seeds,
    weights_seeds,
    weights_words,
)

ROOT = Path(__file__).resolve().parent.parent
# Option files -------------------------------------------------------------------------------------


def option_seeds(_: Path) -> list[Parts]:
    found = []
    for folder in (ROOT / "options", ROOT / "tests" / "official"):
        for pattern, least in (("train_*", 9), ("test_*", 5), ("bench_*", 2)):
            files = sorted(folder.glob(f"{pattern}.yml"), key=lambda file: file.stat().st_size)
            found += [{"text": file.read_bytes()} for file in files[:least]]
    return [*found, {**found[0], "set": b"train.total_iter=8"}]


@cache
def option_words() -> set[bytes]:
    words = set(b"&a *a !!str !x << : - ? | > %YAML ~ 1e400 .nan .inf 0x1 '' {} []".split())
    for file in (ROOT / "options" / "schema").glob("t*.json"):
        waiting = [json.loads(file.read_text())]
        while waiting:
            value = waiting.pop()
            if isinstance(value, dict):
                words.update(str(key).encode() for key in value)
                waiting += value.values()
            elif isinstance(value, list):
                waiting += value
    return words


def read_option_file(folder: Path, parts: Parts) -> None:
    """As `restore check FILE --set …`; what was read is written and read back the same."""
    file, again = folder / "o.yml", folder / "again.yml"
    file.write_bytes(parts["text"])
    assignments = [parts["set"].decode("utf-8", "replace")] if parts["set"] else []
    document = read_document(file)
    for assignment in assignments:
        override(document, assignment)
    if "networks" in document.values:
        read_tree(BenchTree, str(file), assignments, check_bench)
        return
    kind, check = tree_of_file(document)
    tree = read_tree(kind, str(file), assignments, check)
    assert isinstance(tree, kind)
    text = dump(tree.model_dump())
    again.write_text(text, encoding="utf-8")
    assert dump(read_tree(kind, str(again), [], check).model_dump()) == text


# Images -------------------------------------------------------------------------------------------


DROP, BLACK, APPLY = 2, 4, 8  # bits of `how`: what becomes of transparency and of a turn


def image_seeds(_: Path) -> list[Parts]:
    found = [images.encode(picture, ".png", "x") for picture in PICTURES]
    for suffix in (".jpg", ".bmp", ".tif", ".webp"):
        found += [images.encode(PICTURES[k], suffix, "x") for k in (0, 2)]
    text = zlib.compress(b"some text")
    extra = (b"zTXtk\0\0" + text, b"iTXtk\0\1\0\0\0" + text, b"iCCPp\0\0" + text, b"tRNS\0\3",
             b"eXIfMM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0")  # fmt: skip
    for plain in found[:3]:
        chunks = b"".join(struct.pack(">I", len(body) - 4) + body + bytes(4) for body in extra)
        found.append(plain[:33] + chunks + plain[33:])
    how = (SEALED, SEALED | DROP | APPLY)
    return [{"how": bytes([h]), "bytes": body} for h in how for body in found]


def image_words() -> set[bytes]:
    """Names of chunks, markers and tags."""
    chunks = b"IHDR PLTE IDAT IEND tRNS iCCP iTXt zTXt tEXt eXIf acTL gAMA VP8 VP8L VP8X ALPH ANIM"
    markers = {bytes([255, kind]) for kind in (0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB, 0xE1, 0xE2)}
    tags = [256, 257, 258, 259, 262, 273, 274, 277, 279, 284, 317, 322, 323, 324, 325, 330, 339]
    return {*chunks.split(), *markers, *(struct.pack("<H", tag) for tag in tags)}


def with_right_sums(data: bytes) -> bytes:
    """A PNG whose chunks have the sums that they should have."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def read_image(folder: Path, parts: Parts) -> None:
    """As `infer` and the readers of data: from bytes and from a file, whole and a part."""
    data, how = parts["bytes"], bits(parts)
    if how & SEALED and data[:4] == b"\x89PNG":
        data = with_right_sums(data)
    file = folder / "i.png"
    file.write_bytes(data)
    alpha = "drop" if how & DROP else "black" if how & BLACK else "refuse"
    orient, limit = "apply" if how & APPLY else "refuse", MAX_PIXELS
    size = images.read_size(file)
    image = images.read(file, alpha=alpha, orient=orient, max_pixels=limit)
    assert image.dtype in (np.uint8, np.uint16) and image.flags.c_contiguous
    assert image.ndim == 2 or image.ndim == 3 and image.shape[2] == 3
    assert image.shape[:2] in (size, size[::-1])
    checked = images.check(file, alpha=alpha, orient=orient, max_pixels=limit)
    assert checked == image.shape[:2]
    if alpha == orient == "refuse":
        corner = slice(size[0] // 2, size[0]), slice(size[1] // 3, size[1])
        part = images.decode_part(data, "i.png", *corner)
        assert np.array_equal(part, image[corner])


# Archives and MATLAB's files ----------------------------------------------------------------------


def archive_seeds(folder: Path) -> list[Parts]:
    bodies = {"set/HR/a.png": b"abc" * 9, "set/b.txt": b"", "set/.hidden": b"x"}
    found = []
    for how in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(folder / "a.zip", "w", how) as archive:
            for name, body in bodies.items():
                archive.writestr(name, body)
        found.append({"how": b"\0", "bytes": (folder / "a.zip").read_bytes()})
    for number, how in enumerate(("", "gz", "bz2", "xz"), 1):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=f"w:{how}", format=tarfile.PAX_FORMAT) as tar:
            for name, body in bodies.items():
                info = tarfile.TarInfo(name)
                info.size, info.pax_headers = len(body), {"comment": "x"}
                tar.addfile(info, io.BytesIO(body))
        found.append({"how": bytes([number]), "bytes": buffer.getvalue()})
    return found


def read_archive(folder: Path, parts: Parts) -> None:
    """As `prepare`: listed, then every member read."""
    suffix = (".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz")[bits(parts) % 5]
    file = folder / f"a{suffix}"
    file.write_bytes(parts["bytes"])
    with closing(Source([file])) as source:
        for member in source.members[:8]:
            assert ".." not in member.path.split("/") and not member.path.startswith("/")
            assert len(source.read(member)) == member.size


def matrix_seeds(folder: Path) -> list[Parts]:
    blocks = np.arange(2 * 1 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 1, 3, 4, 3)
    stem = BLOCK_FILES[0].split(".")[0]
    boxes = np.empty(2, object)
    boxes[:] = [np.array([[1, 1, 2, 3], [2, 1, 2, 2]], float)] * 2
    info = {"boundingboxes": boxes}
    made: list[tuple[int, dict[str, Any]]] = [
        (0, {stem: blocks}),
        (1, {"info": info}),
        (2, {"InoisySRGB": np.full((4, 4, 3), 0.5)}),
    ]
    found = []
    for how, content in made:
        for compressed in (False, True):
            savemat(folder / "m.mat", content, do_compression=compressed)
            found.append({"how": bytes([how]), "bytes": (folder / "m.mat").read_bytes()})
    NiqeModel(np.zeros(FEATURES), np.eye(FEATURES)).write(folder / "n.npz")
    return [*found, {"how": b"\3", "bytes": (folder / "n.npz").read_bytes()}]


@cache
def dnd_files() -> Mapping[str, bytes]:
    """Right files to stand beside one of DND's."""
    with tempfile.TemporaryDirectory() as folder:
        parts = matrix_seeds(Path(folder))
    return {"info.mat": parts[2]["bytes"], "0001.mat": parts[4]["bytes"]}


def read_matrix(folder: Path, parts: Parts) -> None:
    """SIDD's blocks, DND's boxes and images, a NIQE model."""
    how, body = bits(parts) % 4, parts["bytes"]
    if how == 0:
        file = folder / BLOCK_FILES[0]
        file.write_bytes(body)
        shape = shape_of_blocks(file, file, channels=3)
        assert read_blocks(file, shape).shape == shape
    elif how == 3:
        (folder / "n.npz").write_bytes(body)
        assert NiqeModel.read(folder / "n.npz").covariance.shape == (FEATURES, FEATURES)
    else:
        written(folder, {**dnd_files(), ("info.mat", "0001.mat")[how - 1]: body})
        for block in dnd.read_blocks(folder, "0001.mat"):
            assert block.dtype == np.uint16 and block.ndim == 3 and block.size


ONE = ("how", "bytes")
TARGETS = {
    "options": Target(option_seeds, read_option_file, ("text", "set"), option_words),
    "pack": Target(pack_seeds, read_pack, PACK_PARTS),
    "shards": Target(shards_seeds, read_shards, SHARDS_PARTS),
    "lmdb": Target(lmdb_seeds, read_lmdb, (META,)),
    "weights": Target(weights_seeds, read_weights_file, ("how", "head", "data"), weights_words),
    "checkpoint": Target(checkpoint_seeds, read_checkpoint, CHECKPOINT_PARTS),
    "image": Target(image_seeds, read_image, ONE, image_words),
    "archive": Target(archive_seeds, read_archive, ONE),
    "matrix": Target(matrix_seeds, read_matrix, ONE),
}  # fmt: skip
