"""Floor 4. From an LQ image to a restored one: pad to the network's rule, forward, crop."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore import images
from restore.archs.architecture import SizeRule

Ensemble = Literal[1, 4, 8]


class Predictor:
    """Applies a network, in evaluation mode, to whole images.

    `ensemble`: the mean over 1 (none), 4 (flips) or 8 (flips and quarter turns) forms of the input,
    each turned back.
    """

    def __init__(
        self,
        network: nn.Module,
        scale: int,
        size: SizeRule,
        device: torch.device | None = None,
        *,
        ensemble: Ensemble = 1,
    ) -> None:
        self._ensemble = ensemble
        self._device = device or torch.device("cpu")
        self._network = network.to(self._device).eval()
        self._scale, self._size = scale, size

    @torch.inference_mode()
    def __call__(self, lq: Tensor) -> Tensor:
        """`lq: (B, C, h, w)` in [0, 1] -> `(B, C, h·scale, w·scale)`, unclamped, any h and w."""
        forms = [_turned_back(self._restored(_turned(lq, k)), k) for k in range(self._ensemble)]
        return forms[0] if len(forms) == 1 else torch.stack(forms).mean(dim=0)

    def _restored(self, lq: Tensor) -> Tensor:
        height, width = lq.shape[-2:]
        padded = _padded(lq, self._size.padded(height), self._size.padded(width))
        output = self._network(padded)
        finest = output[0] if isinstance(output, tuple) else output
        return finest[..., : height * self._scale, : width * self._scale]

    def restore(self, image: np.ndarray) -> np.ndarray:
        """`(h, w[, C])` uint8 or uint16 -> restored image of the same type, clamped and rounded."""
        return stored(self.unrounded(image), image.dtype)

    def unrounded(self, image: np.ndarray) -> np.ndarray:
        """`restore` before clamping and rounding: `(h, w[, C])` float32, nominally in [0, 1]."""
        lq = torch.from_numpy(images.to_float(image)).to(self._device)
        output = self(lq.unsqueeze(0))[0].float().cpu().numpy()
        return output[0] if len(output) == 1 else np.ascontiguousarray(output.transpose(1, 2, 0))


def stored(output: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """What a file of uint8 or uint16 keeps of `Predictor.unrounded`."""
    return images.quantise(output, 8 if dtype == np.uint8 else 16)


def _turned(x: Tensor, form: int) -> Tensor:
    """Form 0..7 of `x`: bit 0 mirrors left and right, bit 1 up and down, bit 2 swaps the axes."""
    x = x.flip(-1) if form & 1 else x
    x = x.flip(-2) if form & 2 else x
    return x.transpose(-1, -2) if form & 4 else x


def _turned_back(x: Tensor, form: int) -> Tensor:
    """What `_turned` did, undone."""
    x = x.transpose(-1, -2) if form & 4 else x
    x = x.flip(-2) if form & 2 else x
    return x.flip(-1) if form & 1 else x


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
