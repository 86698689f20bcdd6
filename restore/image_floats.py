"""Floor 2. Stored images made floats."""

from __future__ import annotations

import numpy as np

from restore.image_kernels import compiled


def to_float(image: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """uint8 or uint16, (H, W, C) or (H, W) -> float32 in [0, 1], (C, H, W) or (1, H, W), in `out`
    where it is given.

    Both ways round as a division by 255 or 65535 does; the compiled one is three times as fast.
    """
    assert image.dtype in (np.uint8, np.uint16)
    pixels = image[..., None] if image.ndim == 2 else image
    height, width, channels = pixels.shape
    if out is None:
        out = np.empty((channels, height, width), np.float32)
    assert out.shape == (channels, height, width) and out.flags.c_contiguous
    library = compiled() if channels in (1, 3) else None
    if library is None:
        np.copyto(out, pixels.transpose(2, 0, 1))
        out /= np.iinfo(image.dtype).max
        return out
    if pixels.strides[1:] != (channels * image.itemsize, image.itemsize):
        pixels = np.ascontiguousarray(pixels)
    source, target = pixels.ctypes.data, out.ctypes.data
    bits = 8 * image.itemsize
    library.image_floats(source, pixels.strides[0], height, width, channels, bits, target)
    return out
