"""Floor 3. Stores: the named images of one dataroot, whatever they lie in.

A folder, an LMDB, a pack and shards differ in nothing but where the bytes come from: all give the
same images under the same names in the same order, so everything above them is the same code.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from restore import images
from restore.data.pair import Box


class Held(Protocol):
    """One image of a store, opened, its pixels not yet read."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width). Raises DataError."""
        ...

    def whole(self) -> np.ndarray:
        """All of it, (H, W, 3) or (H, W), uint8 or uint16; may be read-only. Raises DataError."""
        return self.part(Box(0, 0, *self.size))

    def part(self, box: Box) -> np.ndarray:
        """What lies inside `box`, reading as little else as can be. Raises DataError."""
        ...


class Store(Protocol):
    """Named images. `names` are POSIX paths relative to the dataroot, with suffix, sorted."""

    root: str
    names: Sequence[str]

    def held(self, index: int, channels: int | None) -> Held:
        """Image `index`; gray is replicated for 3 `channels`, RGB refused for 1, either taken as it
        is for None."""
        ...

    def check(self, index: int, channels: int | None) -> tuple[int, int]:
        """(height, width) of an image that can be used, decoding as little as possible. Raises
        DataError."""
        ...

    def where(self, index: int) -> str:
        """What messages call image `index`: the path of its file where there is one."""
        return f"{self.root}/{self.names[index]}"


class Encoded(Held):
    """An image file's bytes, in memory."""

    def __init__(self, data: bytes, where: str, channels: int | None) -> None:
        self._data, self._where, self._channels = data, where, channels

    @property
    def size(self) -> tuple[int, int]:
        return images.stored_size(self._data, self._where)

    def whole(self) -> np.ndarray:
        return images.decode(self._data, self._where, channels=self._channels)

    def part(self, box: Box) -> np.ndarray:
        rows, columns = box.slices
        return images.decode_part(self._data, self._where, rows, columns, channels=self._channels)


class FileStore(Store, Protocol):
    """A store of image files as they were written."""

    def encoded(self, index: int) -> bytes:
        """The bytes of the file that image `index` is or was. Raises DataError."""
        ...

    def held(self, index: int, channels: int | None) -> Encoded:
        return Encoded(self.encoded(index), self.where(index), channels)

    def check(self, index: int, channels: int | None) -> tuple[int, int]:
        return images.check(self.where(index), self.encoded(index), channels=channels)


class Folder(FileStore):
    """Image files in a folder, or in all folders under it."""

    def __init__(self, root: str | os.PathLike[str], *, recursive: bool = False) -> None:
        self.root = os.fspath(root)
        self.names = images.list_names(root, recursive=recursive)

    def encoded(self, index: int) -> bytes:
        return images.load(self.where(index))
