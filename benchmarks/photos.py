"""Images to measure data loading with, and how much of a file lies in memory."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from restore import images
from restore.data.prepare import demo
from restore.ops.resize import imresize

HEIGHT, WIDTH, SCALE = 1356, 2040, 4  # as DIV2K


def write_photos(folder: Path, count: int) -> tuple[Path, Path]:
    """`count` PNG of 2040 × 1356 with their ×1/4: (HR, LR) folders.

    Mosaics of the demo set's photographs, enlarged, with a little noise, so that a PNG takes about
    as many bytes a pixel as DIV2K's (1.5); seeded.
    """
    demo.prepare(folder / "demo")
    files = images.list_images(folder / "demo/DIV2K/DIV2K_train_HR")
    size = WIDTH // 2, HEIGHT // 2
    parts = [cv2.resize(images.read(f), size, interpolation=cv2.INTER_CUBIC) for f in files]
    hr, lr = folder / "hr", folder / "lr"
    for target in (hr, lr):
        target.mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        a, b, c, d = (parts[k] for k in rng.permutation(len(parts))[:4])
        mosaic = np.vstack([np.hstack([a, b]), np.hstack([c, d])]).astype(np.float32)
        mosaic += rng.normal(0, 0.4, mosaic.shape).astype(np.float32)
        image = np.clip(np.rint(mosaic), 0, 255).astype(np.uint8)
        images.write(hr / f"{number:04d}.png", image)
        images.write(lr / f"{number:04d}.png", imresize(image, 1 / SCALE))
    return hr, lr


def files_of(*folders: Path) -> list[Path]:
    """All files under folders."""
    return [file for folder in folders for file in folder.rglob("*") if file.is_file()]


def size_of(*folders: Path) -> int:
    """Bytes on disk: blocks, as LMDB's files may have holes."""
    return sum(file.stat().st_blocks * 512 for file in files_of(*folders))


def resident(files: Iterable[Path]) -> float:
    """The share of the files' pages that lie in memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    held = pages = 0
    for file in files:
        size = file.stat().st_size
        if not size:
            continue
        with open(file, "rb") as opened:
            mapped = mmap.mmap(
                opened.fileno(), size, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
            )
        count = -(-size // mmap.PAGESIZE)
        vector = (ctypes.c_ubyte * count)()
        address = ctypes.c_char.from_buffer(mapped)
        libc.mincore(ctypes.c_void_p(ctypes.addressof(address)), ctypes.c_size_t(size), vector)
        del address
        mapped.close()
        held += sum(byte & 1 for byte in bytes(vector))
        pages += count
    return held / max(pages, 1)


def drop(files: Iterable[Path]) -> None:
    """Let the system forget the files' pages."""
    for file in files:
        opened = os.open(file, os.O_RDONLY)
        os.fsync(opened)
        os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(opened)
