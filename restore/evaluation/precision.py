"""Floor 4. Half precision: which kinds there are and what a device can do."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from restore.errors import BackendError
from restore.evaluation.options import Precision

HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """Matrix products and convolutions in `precision` on `device`."""
    half = HALF.get(precision)
    return torch.autocast(device.type, dtype=half, enabled=half is not None)


def check_precision(precision: Precision, device: torch.device, where: str) -> None:
    """BackendError DEV03 when `device` cannot compute in `precision`; `where` is the option."""
    if precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise BackendError.of(
            "DEV03",
            "this GPU has no bf16",
            where,
            torch.cuda.get_device_name(device),
            "fp16 or fp32 on this GPU",
            "choose fp16 or fp32",
        )
