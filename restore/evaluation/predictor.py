"""Floor 4. From an LQ image to a restored one: pad to the network's rule, forward, crop."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore import images
from restore.archs.architecture import SizeRule


class Predictor:
    """Applies a network, in evaluation mode, to whole images."""

    def __init__(
        self, network: nn.Module, scale: int, size: SizeRule, device: torch.device | None = None
    ) -> None:
        self._device = device or torch.device("cpu")
        self._network = network.to(self._device).eval()
        self._scale, self._size = scale, size

    @torch.inference_mode()
    def __call__(self, lq: Tensor) -> Tensor:
        """`lq: (B, C, h, w)` in [0, 1] -> `(B, C, h·scale, w·scale)`, unclamped, any h and w."""
        height, width = lq.shape[-2:]
        padded = _padded(lq, self._size.padded(height), self._size.padded(width))
        output = self._network(padded)
        finest = output[0] if isinstance(output, tuple) else output
        return finest[..., : height * self._scale, : width * self._scale]

    def restore(self, image: np.ndarray) -> np.ndarray:
        """`(h, w[, C])` uint8 or uint16 -> restored image of the same type, clamped and rounded."""
        lq = torch.from_numpy(images.to_float(image)).to(self._device)
        output = self(lq.unsqueeze(0))[0].float().cpu().numpy()
        bits = 8 if image.dtype == np.uint8 else 16
        stored = images.quantise(output, bits)
        return (
            stored[0] if stored.shape[0] == 1 else np.ascontiguousarray(stored.transpose(1, 2, 0))
        )


def _padded(lq: Tensor, height: int, width: int) -> Tensor:
    """`lq` extended at the bottom and right, mirrored as far as the image reaches."""
    while lq.shape[-2] < height or lq.shape[-1] < width:
        below = min(height - lq.shape[-2], max(lq.shape[-2] - 1, 0))
        right = min(width - lq.shape[-1], max(lq.shape[-1] - 1, 0))
        if below or right:
            lq = F.pad(lq, (0, right, 0, below), mode="reflect")
        else:  # a side of one pixel has nothing to mirror
            missing = (0, width - lq.shape[-1], 0, height - lq.shape[-2])
            lq = F.pad(lq, missing, mode="replicate")
    return lq
