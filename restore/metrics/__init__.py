"""Floor 3. Metrics and the named rules they follow; handed on, imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from restore.catalog import locate

if TYPE_CHECKING:
    from restore.metrics.psnr_ssim import psnr, ssim

__all__ = ["psnr", "ssim"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return locate(f"restore.metrics.psnr_ssim:{name}")
    raise AttributeError(f"module 'restore.metrics' has no attribute '{name}'")
