"""BasicSR's way of feeding SR training, to measure against.

`Plain` makes the same calls in the same order as its PairedImageDataset, `Real` runs the checkout
that --baseline names; `cut_up` and `make_lmdb` prepare data as its scripts do (extract_subimages.py
with compression level 3, make_lmdb_from_imgs with level 1). Chance comes from our draws, so that
both sides cut and turn alike.
"""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import lmdb
import numpy as np
import torch
from torch import Tensor

from restore.data.augment import Draw, Turn

Pair = tuple[Tensor, Tensor]


class Plain:
    """float32 (C, H, W) crops of image files or of an LMDB of them."""

    def __init__(self, gt: Path, lq: Path, names: Sequence[str], *, backend: str) -> None:
        self._roots, self._names, self._lmdb = (gt, lq), names, backend == "lmdb"
        self._clients = [
            lmdb.open(str(root), readonly=True, lock=False, readahead=False) for root in (gt, lq)
        ] if self._lmdb else []  # fmt: skip

    def __call__(self, draw: Draw, scale: int) -> Pair:
        """(lq, gt) of a draw."""
        name = self._names[draw.key[2]]
        gt, lq = (self._float(side, name) for side in (0, 1))
        box = draw.box(name, *lq.shape[:2], scale)
        large = box.times(scale)
        lq, gt = (_turned(draw.turn(), a) for a in (lq[box.slices], gt[large.slices]))
        return _tensor(lq), _tensor(gt)

    def _float(self, side: int, name: str) -> np.ndarray:
        if self._lmdb:
            with self._clients[side].begin(write=False) as reading:
                data = reading.get(name.encode("ascii"))
        else:
            data = (self._roots[side] / f"{name}.png").read_bytes()
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        assert decoded is not None
        return decoded.astype(np.float32) / 255.0


def _turned(turn: Turn, image: np.ndarray) -> np.ndarray:
    if turn.hflip:
        cv2.flip(image, 1, image)
    if turn.vflip:
        cv2.flip(image, 0, image)
    return image.transpose(1, 0, 2) if turn.transposed else image


def _tensor(image: np.ndarray) -> Tensor:
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return torch.from_numpy(image.transpose(2, 0, 1)).float()


class Scripted:
    """In place of the module `random` in BasicSR's transforms: gives what a draw decides."""

    def __init__(self) -> None:
        self._places: list[int] = []
        self._flips: list[bool] = []

    def script(self, draw: Draw) -> None:
        """Be ready for one sample."""
        self._places = [word >> 32 for word in draw.words[:2]]
        self._flips = list(draw.turn())

    def randint(self, low: int, high: int) -> int:
        return low + (self._places.pop(0) * (high - low + 1) >> 32)

    def random(self) -> float:
        return 0.25 if self._flips.pop(0) else 0.75


SCRIPT = Scripted()  # one for all: their transforms are one module


class Real:
    """BasicSR's own PairedImageDataset from a checkout; nothing else of it is imported."""

    def __init__(
        self, checkout: Path, gt: Path, lq: Path, *, backend: str, scale: int, gt_size: int
    ) -> None:
        dataset, transforms = _imported(checkout)
        transforms.random = SCRIPT
        options: dict[str, Any] = {
            "dataroot_gt": str(gt), "dataroot_lq": str(lq), "io_backend": {"type": backend},
            "gt_size": gt_size, "use_hflip": True, "use_rot": True, "scale": scale,
            "phase": "train",
        }  # fmt: skip
        self._dataset = dataset.PairedImageDataset(options)
        stems = [Path(paths["gt_path"]).name.removesuffix(".png") for paths in self._dataset.paths]
        self._at = [stems.index(stem) for stem in sorted(stems)]  # folders are in no order

    def __call__(self, draw: Draw, scale: int) -> Pair:
        """(lq, gt) of a draw."""
        SCRIPT.script(draw)
        sample = self._dataset[self._at[draw.key[2]]]
        return sample["lq"], sample["gt"]


def _imported(checkout: Path) -> tuple[Any, Any]:
    """The modules of the data set and its transforms, without BasicSR's __init__ files, which
    import everything, and with a stub for torchvision."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional",
                 "torchvision.utils"):  # fmt: skip
        sys.modules.setdefault(name, types.ModuleType(name))
    functional: Any = sys.modules["torchvision.transforms.functional"]
    utils: Any = sys.modules["torchvision.utils"]
    functional.normalize = functional.rgb_to_grayscale = utils.make_grid = None
    for name in ("basicsr", "basicsr.data"):
        module = types.ModuleType(name)
        module.__path__ = [str(checkout / name.replace(".", "/"))]
        sys.modules.setdefault(name, module)
    dataset = importlib.import_module("basicsr.data.paired_image_dataset")
    return dataset, importlib.import_module("basicsr.data.transforms")


def cut_up(source: Path, target: Path, size: int, step: int) -> list[str]:
    """Sub-images of a folder as PNG, compression level 3; their names without suffix."""
    target.mkdir()
    names = []
    for file in sorted(source.iterdir()):
        image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        assert image is not None
        tops, lefts = (
            [*range(0, n - size + 1, step), *([n - size] if (n - size) % step else [])]
            for n in image.shape[:2]
        )
        for number, (top, left) in enumerate([(y, x) for y in tops for x in lefts], start=1):
            name = f"{file.stem}_s{number:03d}"
            sub = np.ascontiguousarray(image[top : top + size, left : left + size])
            cv2.imwrite(str(target / f"{name}.png"), sub, [cv2.IMWRITE_PNG_COMPRESSION, 3])
            names.append(name)
    return names


def make_lmdb(source: Path, target: Path) -> None:
    """An LMDB of a folder's images, encoded anew at level 1, with meta_info.txt."""
    files = sorted(source.iterdir())
    with (
        lmdb.open(str(target), map_size=1 << 36) as base,
        open(target / "meta_info.txt", "w") as meta,
    ):
        writing = base.begin(write=True)
        for number, file in enumerate(files):
            image = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
            assert image is not None
            data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
            writing.put(file.stem.encode("ascii"), data)  # type: ignore[arg-type]
            height, width, channels = image.shape
            meta.write(f"{file.name} ({height},{width},{channels}) 1\n")
            if number % 5000 == 0:
                writing.commit()
                writing = base.begin(write=True)
        writing.commit()
