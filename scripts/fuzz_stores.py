"""Targets of scripts/fuzz.py that are whole folders, and weights files; see fuzz_targets.py."""

from __future__ import annotations

import hashlib
import json
import struct
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
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
from restore.data.pair import Box
from restore.data.stores.lmdb_store import DATA, META, LmdbFolder, write_lmdb
from restore.data.stores.pack import ENDS, HEADER, PIXELS, RECORDS, Pack
from restore.data.stores.pack_writer import write_pack
from restore.data.stores.sealed import NAMES
from restore.data.stores.shards import HEADER as SHARDS_HEADER
from restore.data.stores.shards import RECORDS as SHARDS_RECORDS
from restore.data.stores.shards import Shards, write_shards
from restore.data.stores.store import Held
from restore.training.checkpoint import Checkpoints
from restore.training.options import Adam
from restore.training.state import TrainState, build_optimiser
from restore.world import World

from fuzz_parts import (
    MAX_PIXELS,
    PICTURE_NAMES,
    PICTURES,
    SEALED,
    Parts,
    bits,
    read_back,
    resealed,
    written,
)

# Stores -------------------------------------------------------------------------------------------

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
    parts = resealed(parts, HEADER)
    if not parts[ENDS]:
        parts = {name: body for name, body in parts.items() if name != ENDS}
    written(folder, parts)
    pack = Pack(folder)
    for index in range(min(len(pack.names), 4)):
        read_held(pack.held(index, None))
        pack.verify(index)


@cache
def encoded_pictures() -> list[bytes]:
    return [images.encode(picture, ".png", "x") for picture in PICTURES]


def shards_seeds(folder: Path) -> list[Parts]:
    write_shards(folder / "s", PICTURE_NAMES, encoded_pictures().__getitem__)
    return [read_back(folder / "s", SHARDS_PARTS)]


def read_shards(folder: Path, parts: Parts) -> None:
    """As the data of a training."""
    written(folder, resealed(parts, SHARDS_HEADER))
    shards = Shards(folder, attempts=1)
    for index in range(min(len(shards.names), 4)):
        read_held(shards.held(index, None))


@cache
def whole_lmdb() -> dict[str, bytes]:
    """The files of a right LMDB folder."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "l"
        write_lmdb(place, PICTURE_NAMES, encoded_pictures().__getitem__)
        return {name: (place / name).read_bytes() for name in (DATA, META)}


def lmdb_seeds(_: Path) -> list[Parts]:
    return [{META: whole_lmdb()[META]}]


def read_lmdb(folder: Path, parts: Parts) -> None:
    """As the data of a training, with a right data.mdb beside any meta_info.txt."""
    written(folder, {**whole_lmdb(), **parts})
    store = LmdbFolder(folder)
    for index in range(min(len(store.names), 4)):
        read_held(store.held(index, None))


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


CALLED = {
    "torch._utils": "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_qtensor "
    "_rebuild_sparse_tensor _rebuild_nested_tensor _rebuild_parameter _rebuild_wrapper_subclass "
    "_rebuild_parameter_with_state _rebuild_meta_tensor_no_storage",
    "torch": "Size device float32 int64 FloatStorage HalfStorage BoolStorage strided sparse_coo",
    "torch._tensor": "_rebuild_from_type_v2",
    "torch.nn.parameter": "Parameter",
    "torch.serialization": "_get_layout",
    "torch.storage": "UntypedStorage",
    "collections": "Counter OrderedDict",
    "builtins": "set complex dict list",
    "numpy": "dtype ndarray",
    "numpy._core.multiarray": "scalar",
    "_codecs": "encode",
    "argparse": "Namespace",
}
"""Names that a pickle of weights may call by."""


def weights_words() -> set[bytes]:
    words = b'"dtype" "shape" "data_offsets" "F16" "BF16" "F8_E4M3" "BOOL" "U64" "C64"'.split()
    called = [(module, name) for module, names in CALLED.items() for name in names.split()]
    return {f"c{module}\n{name}\n".encode() for module, name in called} | set(words)


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
