"""What scripts/fuzz.py fuzzes: readers of files from elsewhere, right files, and right answers.

A target's input is a few named parts, so that a mutation stays inside one of them, and a reader is
not kept out by sums: the part `how` says, in its first byte, whether checksums are made right for
the others first. Each target writes a file or a folder, reads it as a command does, and asserts
what must hold of whatever was read. RestoreError is a right answer, anything else is a find.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.io import savemat
from torch import nn

from restore import images
from restore.archs.detect import detect
from restore.archs.weights import (
    about_weights,
    load_weights,
    state_sha256,
    tensors_of,
    write_safetensors,
)
from restore.commands.check import tree_of_file
from restore.commands.shared import read_tree
from restore.data.blocks import BLOCK_FILES, read_blocks, shape_of_blocks
from restore.data.pair import Box
from restore.data.prepare import dnd
from restore.data.prepare.source import Source
from restore.data.stores.pack import ENDS, HEADER, PIXELS, RECORDS, Pack
from restore.data.stores.pack_writer import write_pack
from restore.data.stores.sealed import NAMES
from restore.data.stores.shards import HEADER as SHARDS_HEADER
from restore.data.stores.shards import RECORDS as SHARDS_RECORDS
from restore.data.stores.shards import Shards, write_shards
from restore.data.stores.store import Held
from restore.metrics.niqe import FEATURES, NiqeModel
from restore.options import dump, override, read_document
from restore.recipes.bench_trees import BenchTree, check_bench
from restore.training.checkpoint import Checkpoints
from restore.training.options import Adam
from restore.training.state import TrainState, build_optimiser
from restore.world import World

ROOT = Path(__file__).resolve().parent.parent
SEALED = 1  # bit of `how`: sums are made right
MAX_PIXELS = 1 << 18  # of an image here: what a decoder may do with more is its own affair
Parts = dict[str, bytes]


@dataclass(frozen=True)
class Target:
    """A reader: the parts of its input, right inputs, and reading one in an empty folder."""

    about: str
    seeds: Callable[[Path], list[Parts]]
    read: Callable[[Path, Parts], None]
    parts: tuple[str, ...]
    words: Callable[[], set[bytes]] = set
    """Words that inputs are made of."""


def packed(parts: Mapping[str, bytes], names: tuple[str, ...]) -> bytes:
    """The parts as one input: their lengths, then they."""
    bodies = [parts.get(name, b"") for name in names]
    return struct.pack(f"<{len(names)}I", *map(len, bodies)) + b"".join(bodies)


def unpacked(data: bytes, names: tuple[str, ...]) -> Parts:
    """The parts of any input; where it is cut short, the last ones are empty."""
    head = 4 * len(names)
    lengths = struct.unpack(f"<{len(names)}I", data[:head].ljust(head, b"\0"))
    found, at = {}, head
    for name, length in zip(names, lengths, strict=True):
        found[name] = data[at : at + length]
        at += length
    return found


def bits(parts: Parts) -> int:
    """The first byte of `how`."""
    return parts["how"][0] if parts["how"] else 0


def written(folder: Path, parts: Parts) -> None:
    """All parts but `how` as files."""
    for name, body in parts.items():
        if name != "how":
            (folder / name).write_bytes(body)


def read_back(folder: Path, names: tuple[str, ...]) -> Parts:
    """The files of a folder as sealed parts."""
    there = {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}
    return {"how": bytes([SEALED]), **there}


def resealed(parts: Parts, header: str, sums: Callable[[bytes], dict[str, Any]]) -> Parts:
    """The parts with a header that gives the sums of the others, where it can be changed."""
    if not bits(parts) & SEALED:
        return parts
    try:
        facts = json.loads(parts[header])
    except (ValueError, RecursionError):
        return parts
    if not isinstance(facts, dict):
        return parts
    for name, body in parts.items():
        for key, value in sums(body).items():
            place = f"{name} {key}".strip()
            if place in facts:
                facts[place] = value
    return {**parts, header: json.dumps(facts).encode()}


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


# Stores -------------------------------------------------------------------------------------------

PICTURES = [
    np.arange(9 * 7 * 3, dtype=np.uint8).reshape(9, 7, 3),
    np.arange(130 * 3, dtype=np.uint16).reshape(130, 3),
    np.arange(5 * 131, dtype=np.uint8).reshape(5, 131),
]
PICTURE_NAMES = ["a.png", "b.png", "c.png"]
PACK_PARTS = ("how", HEADER, NAMES, RECORDS, ENDS, PIXELS)
SHARDS_PARTS = ("how", SHARDS_HEADER, NAMES, SHARDS_RECORDS, "00000.tar")


def read_held(held: Held) -> None:
    """An image and a part of it; of an image that is large by mistake, a corner."""
    height, width = held.size
    assert height >= 1 and width >= 1
    box = Box(height // 2, width // 2, min(height - height // 2, 40), min(width - width // 2, 40))
    part = held.part(box)
    assert part.dtype in (np.uint8, np.dtype("<u2")) and part.shape[:2] == box[2:]
    if height * width <= MAX_PIXELS:
        whole = held.whole()
        assert whole.shape[:2] == (height, width)
        assert np.array_equal(whole[box.slices], part)


def pack_seeds(folder: Path) -> list[Parts]:
    found = []
    for tiles, codec in ((False, "raw"), (True, "raw"), (True, "zlib")):
        path = folder / f"{tiles}{codec}"
        write_pack(path, PICTURE_NAMES, PICTURES.__getitem__, tiles=tiles, codec=codec)
        found.append(read_back(path, PACK_PARTS))
    return found


def read_pack(folder: Path, parts: Parts) -> None:
    """As the data of a training: opened, parts read, compared with the checksums."""
    parts = resealed(parts, HEADER, lambda body: {"crc32": zlib.crc32(body)})
    if not parts[ENDS]:
        parts = {name: body for name, body in parts.items() if name != ENDS}
    written(folder, parts)
    pack = Pack(folder)
    for index in range(min(len(pack.names), 4)):
        read_held(pack.held(index, None))
        pack.verify(index)


def shards_seeds(folder: Path) -> list[Parts]:
    encoded = [images.encode(picture, ".png", "x") for picture in PICTURES]
    write_shards(folder / "s", PICTURE_NAMES, encoded.__getitem__)
    return [read_back(folder / "s", SHARDS_PARTS)]


def read_shards(folder: Path, parts: Parts) -> None:
    """As the data of a training."""
    written(folder, resealed(parts, SHARDS_HEADER, lambda body: {"crc32": zlib.crc32(body)}))
    shards = Shards(folder, attempts=1)
    for index in range(min(len(shards.names), 4)):
        read_held(shards.held(index, None))


# Weights and checkpoints --------------------------------------------------------------------------

ZIP, LEGACY, SAFETENSORS = 0, 2, 4  # kinds of weights files, beside the bit for sums


class Small(nn.Module):
    """What is loaded into."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 1)
        self.norm = nn.BatchNorm2d(2)


def weights_seeds(folder: Path) -> list[Parts]:
    state = Small().state_dict()
    made: list[Any] = [
        state,
        {"params": state, "params_ema": state, "iter": 3},
        {"model": {"module." + k: v for k, v in state.items()}, "note": {1: [2.5]}},
    ]
    found = []
    for content in made:
        torch.save(content, folder / "zip.pth")
        with zipfile.ZipFile(folder / "zip.pth") as archive:
            read = {name.split("/", 1)[1]: archive.read(name) for name in archive.namelist()}
            held = [read[f"data/{k}"] for k in range(len(read)) if f"data/{k}" in read]
            data = b"".join(bytes([len(body)]) + body for body in held)
        found.append({"how": bytes([SEALED | ZIP]), "head": read["data.pkl"], "data": data})
        found.append({"how": bytes([ZIP]), "head": (folder / "zip.pth").read_bytes()})
        torch.save(content, folder / "old.pth", _use_new_zipfile_serialization=False)
        found.append({"how": bytes([LEGACY]), "head": (folder / "old.pth").read_bytes()})
    write_safetensors(folder / "a.safetensors", state, {"network_g": {"type": "SPAN"}})
    raw = (folder / "a.safetensors").read_bytes()
    stop = 8 + int.from_bytes(raw[:8], "little")
    sealed = {"how": bytes([SEALED | SAFETENSORS]), "head": raw[8:stop], "data": raw[stop:]}
    return [*found, sealed, {"how": bytes([SAFETENSORS]), "head": raw}]


def weights_file(folder: Path, parts: Parts) -> Path:
    """The file that `how` asks for: a container that is whole around the parts, or bytes as is."""
    how, head, data = bits(parts), parts["head"], parts["data"]
    if how & SAFETENSORS:
        file = folder / "w.safetensors"
        length = struct.pack("<Q", len(head)) if how & SEALED else b""
        file.write_bytes(length + head + data)
        return file
    file = folder / "w.pth"
    if how & LEGACY or not how & SEALED:
        file.write_bytes(head)
        return file
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("w/data.pkl", head)
        archive.writestr("w/version", b"3\n")
        archive.writestr("w/byteorder", b"little")
        number = 0
        while data:  # each begins with its length
            archive.writestr(f"w/data/{number}", data[1 : 1 + data[0]])
            number, data = number + 1, data[1 + data[0] :]
    return file


def read_weights_file(folder: Path, parts: Parts) -> None:
    """As `inspect`, `convert` and `test`: tensors, their hash, their family, loaded leniently."""
    file = weights_file(folder, parts)
    assert isinstance(about_weights(file), dict)
    tensors, _ = tensors_of(file)
    assert sum(value.numel() * value.element_size() for value in tensors.values()) < 1 << 27
    found = detect({key: tuple(value.shape) for key, value in tensors.items()})
    assert found is None or str(found)
    state_sha256(tensors)
    load_weights(Small(), file, strict=False)


CHECKPOINT_PARTS = ("how", "MANIFEST.json", "state.json", "model.safetensors", "ema.safetensors",
                    "optim.safetensors")  # fmt: skip


def train_state() -> TrainState:
    network = Small()
    optimiser = build_optimiser(Adam(lr=1e-3), network)
    return TrainState(network, optimiser, lambda step: 1e-3, ema_decay=0.9, grad_clip=None, seed=1,
                      world=World())  # fmt: skip


def checkpoint_seeds(folder: Path) -> list[Parts]:
    state, store = train_state(), Checkpoints(folder, 2, {"network_g": {"type": "SPAN"}})
    empty = store.save(state.tensors(), state.numbers(), best=False)
    found = [read_back(empty, CHECKPOINT_PARTS)]
    with state.part(0, 1):
        loss = state.network.norm(state.network.conv(torch.ones(2, 1, 2, 2))).square().sum()
        state.backward(loss)
    state.advance(2)
    return [*found, read_back(store.save(state.tensors(), state.numbers(), best=False),
                              CHECKPOINT_PARTS)]  # fmt: skip


def read_checkpoint(folder: Path, parts: Parts) -> None:
    """As a training that is resumed."""
    one = folder / "step_00000004"
    one.mkdir()
    if bits(parts) & SEALED:
        manifest = {
            name: {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
            for name, body in parts.items()
            if name not in ("how", "MANIFEST.json") and body
        }
        parts = {**parts, "MANIFEST.json": json.dumps(manifest).encode()}
    written(one, {name: body for name, body in parts.items() if body})
    store = Checkpoints(folder, 2, {"network_g": {"type": "SPAN"}})
    saved = store.load_newest()
    if saved is None:
        return
    store.differences(saved)
    state = train_state()
    state.restore(saved.tensors, saved.numbers)
    assert isinstance(saved.numbers["ranks"], int) and state.step >= 0 and state.samples >= 0


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
    with Source([file]) as source:
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
    "options": Target("option files and overrides", option_seeds, read_option_file,
                      ("text", "set"), option_words),
    "pack": Target("packs of tiles and rows", pack_seeds, read_pack, PACK_PARTS),
    "shards": Target("tar shards and their index", shards_seeds, read_shards, SHARDS_PARTS),
    "weights": Target("weights files", weights_seeds, read_weights_file, ("how", "head", "data")),
    "checkpoint": Target("checkpoints", checkpoint_seeds, read_checkpoint, CHECKPOINT_PARTS),
    "image": Target("image files", image_seeds, read_image, ONE),
    "archive": Target("archives given to prepare", archive_seeds, read_archive, ONE),
    "matrix": Target("MATLAB's and NumPy's files", matrix_seeds, read_matrix, ONE),
}  # fmt: skip


def seeds_of(target: Target) -> list[bytes]:
    """The right inputs of a target."""
    with tempfile.TemporaryDirectory(prefix="seeds-") as folder:
        return [packed(parts, target.parts) for parts in target.seeds(Path(folder))]


def read_input(target: Target, data: bytes, folder: Path) -> None:
    """Read one input in `folder`, which is emptied first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    target.read(folder, unpacked(data, target.parts))
