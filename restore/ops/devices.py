"""Floor 2. What torch asks a device's name for."""

from __future__ import annotations

from torch import Tensor


def autocast_device(x: Tensor) -> str:
    """The device type whose autocast `x` is under; the CPU's for `meta`, which has none.

    So that a network can be run on `meta` to count its operations at any size.
    """
    return "cpu" if x.is_meta else x.device.type
