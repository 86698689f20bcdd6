"""Floor 4. From an LQ image to a restored one: cut to what fits into memory, pad to the network's
rule, forward, crop, put together."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from restore import images
from restore.archs.architecture import SizeRule
from restore.errors import BackendError
from restore.evaluation.memory import GIB, available, is_out_of_memory, taken
from restore.evaluation.options import PredictorOptions
from restore.evaluation.precision import autocast
from restore.evaluation.tiles import RAMP, Piece, Plan, bands, even_cut, grl_cut, mair_cut, whole
from restore.image_rows import Canvas, Rows

log = logging.getLogger("restore")
T = TypeVar("T")

OVERLAP = 32  # LQ pixels, where a network's reach is not known
SMALLEST = 64  # LQ pixels that a tile adds at least, its overlap aside
STRIP = 64  # rows of a restored image that are rounded at a time
PROBE = 128  # side of the tile on which memory is measured; smaller images are never cut by `auto`

# Part of an image: rows and columns -> (B, C, rows, columns) in [0, 1] on the device
View = Callable[[slice, slice], Tensor]


@dataclass(frozen=True)
class Restoration:
    """A restored image and how it was cut."""

    image: np.ndarray
    tile: int
    """Side of a tile in LQ pixels; 0 for an image restored whole."""
    tiles: int
    overlap: int
    """LQ pixels that neighbouring tiles share."""
    difference: float
    """The largest difference from the image restored whole, on [0, 1]; NaN unless asked for."""
    unrounded: np.ndarray | None = None
    """The image before clamping and rounding, float32 in about [0, 1], where it was asked for."""


class Predictor:
    """Applies a network, in evaluation mode, to whole images.

    `step`: what tiles begin at multiples of; `reach`: how far an output pixel sees, in LQ pixels.
    """

    def __init__(
        self,
        network: nn.Module,
        scale: int,
        size: SizeRule,
        device: torch.device | None = None,
        options: PredictorOptions | None = None,
        *,
        step: int = 1,
        reach: int | None = None,
    ) -> None:
        self.options = options or PredictorOptions()
        self._device = device or torch.device("cpu")
        self._network = network.to(self._device).eval()
        self._scale, self._size, self._step = scale, size, step
        overlap = self.options.tile_overlap
        exact = OVERLAP if reach is None else 2 * reach + RAMP
        overlap = exact if overlap is None else overlap
        self._overlap = -(-overlap // step) * step
        self._per_pixel: float | None = None  # bytes of a forward pass, once measured
        self._room: int | None = None  # pixels of a tile that memory had room for

    @torch.inference_mode()
    def __call__(self, lq: Tensor) -> Tensor:
        """`lq: (B, C, h, w)` in [0, 1] -> `(B, C, h·scale, w·scale)`, unclamped, any h and w."""
        return self._float(lq)[0]

    def restore(self, image: np.ndarray) -> np.ndarray:
        """`(h, w[, C])` uint8 or uint16 -> restored image of the same type, clamped and rounded."""
        return self.run(image).image

    @torch.inference_mode()
    def write(self, image: np.ndarray, onto: Rows) -> None:
        """`restore`, each row handed on as soon as it is done. Raises BackendError DEV05.

        Memory beyond the image and one forward pass: a row of restored tiles in float32.
        """
        self._restore(image, onto, unrounded=False)

    @torch.inference_mode()
    def run(self, image: np.ndarray, *, unrounded: bool = False) -> Restoration:
        """`restore`, and how it went. Raises BackendError DEV05 when memory does not suffice.

        Memory beyond the two images and one forward pass: a row of tiles in float32, or the whole
        result where the `unrounded` numbers are wanted as well.
        """
        canvas = Canvas()
        plan, floats = self._restore(image, canvas, unrounded=unrounded)
        difference = math.nan
        if self.options.tile_difference and plan.tiles > 1 and not self._forms_outside:
            difference = self._difference(_part(image, self._device), plan)
        return Restoration(canvas.image, *_about(plan), difference, floats)

    def _restore(
        self, image: np.ndarray, onto: Rows, *, unrounded: bool
    ) -> tuple[Plan, np.ndarray | None]:
        """How `image` was cut, and the result before rounding where that is wanted."""
        bits = 8 if image.dtype == np.uint8 else 16
        height, width = image.shape[:2]
        if self._forms_outside:
            output, plan = self._float(_part(image, self._device))
            _, channels, *sides = output.shape
            onto.begin(sides[0], sides[1], channels, bits)
            _put(output, onto, bits)
            return plan, _as_image(output) if unrounded else None

        def view(rows: slice, columns: slice) -> Tensor:
            return _part(image[rows, columns], self._device)

        floats: list[np.ndarray] | None = [] if unrounded else None
        _, plan = self._with_room(
            height, width, view, lambda plan: self._put_bands(plan, view, onto, bits, floats)
        )
        return plan, np.concatenate(floats) if floats else None

    @property
    def _forms_outside(self) -> bool:
        """The published evaluations turn the image and cut each form; ours turns each tile."""
        return self.options.ensemble > 1 and self.options.tiling != "blend"

    def _float(self, lq: Tensor) -> tuple[Tensor, Plan]:
        """The unclamped output for `lq: (B, C, h, w)`, and the plan of its first form."""
        forms = self.options.ensemble if self._forms_outside else 1
        total, first = None, None
        for form in range(forms):
            x = _turned(lq, form)
            output, plan = self._with_room(
                x.shape[-2],
                x.shape[-1],
                lambda rows, columns, x=x: x[..., rows, columns],
                lambda plan, x=x: self._joined(x, plan),
            )
            output = _turned_back(output, form)
            total = output if total is None else total.add_(output)
            first = first or plan
        assert total is not None and first is not None
        return (total if forms == 1 else total / forms), first

    def _joined(self, lq: Tensor, plan: Plan) -> Tensor:
        def restored(rows: Piece, columns: Piece) -> Tensor:
            return self._tile(lambda r, c: lq[..., r, c], plan, rows, columns).to(lq)

        parts = [band for _, band in bands(plan, self._scale, restored)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-2)

    def _put_bands(
        self, plan: Plan, view: View, onto: Rows, bits: int, floats: list[np.ndarray] | None
    ) -> None:
        """The restored image, rounded band by band, so that no float image is held unless asked
        for: the rounded one is the same either way."""

        def restored(rows: Piece, columns: Piece) -> Tensor:
            return self._tile(view, plan, rows, columns).float().cpu()

        for top, band in bands(plan, self._scale, restored):
            if top == 0:
                height, width = (cut.length * self._scale for cut in plan)
                onto.begin(height, width, band.shape[1], bits)
                if floats is not None:
                    floats.clear()
            _put(band, onto, bits)
            if floats is not None:
                floats.append(_as_image(band))
            del band  # before the next one is made

    def _difference(self, lq: Tensor, plan: Plan) -> float:
        """The largest difference between tiles and whole; NaN where the whole does not fit."""
        try:
            uncut = self._joined(lq, Plan(whole(lq.shape[-2]), whole(lq.shape[-1])))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            log.warning("no difference from the whole image: it does not fit into memory")
            return math.nan
        return (self._joined(lq, plan) - uncut).abs().max().item()

    # Tiles and memory -----------------------------------------------------------------------------

    def _with_room(
        self, height: int, width: int, view: View, restored: Callable[[Plan], T]
    ) -> tuple[T, Plan]:
        """`restored(plan)`; when memory runs out, `auto` halves its tiles and begins again."""
        while True:
            plan = self._plan(height, width, view)
            try:
                return restored(plan), plan
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if not self._make_smaller(plan):
                    side, image = plan.side, f"an image of {width}×{height}"
                    raise self._no_room(f"a tile of {side}×{side}" if side else image) from error
            # here the error, and with it the tensors of the failed pass, is gone
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _plan(self, height: int, width: int, view: View) -> Plan:
        tiling, tile = self.options.tiling, self.options.tile
        if tiling == "mair":
            return Plan(mair_cut(height), mair_cut(width))
        if tiling == "grl":
            assert isinstance(tile, int)
            side = min(tile, height, width)
            if side > self._overlap:  # else the published rule has no tiles
                overlap = self._overlap
                return Plan(grl_cut(height, side, overlap), grl_cut(width, side, overlap))
            return Plan(whole(height), whole(width))
        side = tile if isinstance(tile, int) else 0
        if tile == "auto":
            side = self._fitting(height, width, view)
        if not side:
            return Plan(whole(height), whole(width))
        cuts = (even_cut(length, side, self._overlap, self._step) for length in (height, width))
        return Plan(*cuts)

    def _fitting(self, height: int, width: int, view: View) -> int:
        """The side of the largest tile for which there is memory; 0 for the whole image."""
        pixels = self._size.padded(height) * self._size.padded(width)
        if pixels <= PROBE * PROBE and self._room is None:
            return 0
        if self._per_pixel is None:
            self._per_pixel = self._measured(view)
        memory = self.options.tile_memory
        budget = available(self._device) if memory is None else memory * GIB
        room = math.floor(budget / self._per_pixel)
        room = room if self._room is None else min(room, self._room)
        return 0 if pixels <= room else max(math.isqrt(room), self._smallest)

    def _measured(self, view: View) -> float:
        """Bytes that a forward pass takes for each pixel, measured on the image's corner."""
        corner = view(slice(0, PROBE), slice(0, PROBE))
        corner = _padded(corner, PROBE, PROBE)
        pixels = self._size.padded(PROBE) ** 2
        try:
            with torch.compiler.set_stance("force_eager"):
                return taken(lambda: self._forward(corner), self._device) / pixels
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise self._no_room(f"a tile of {PROBE}×{PROBE}") from error

    @property
    def _smallest(self) -> int:
        return self._overlap + SMALLEST

    def _make_smaller(self, plan: Plan) -> bool:
        """Remember that a tile of `plan` did not fit; False where there is no smaller one."""
        side = plan.side or max(plan.rows.length, plan.columns.length)
        if self.options.tile != "auto" or self.options.tiling != "blend" or side <= self._smallest:
            return False
        self._room = max(side // 2, self._smallest) ** 2
        log.warning("no memory for %d LQ pixels a side: going on with tiles of half that", side)
        return True

    def _no_room(self, what: str) -> BackendError:
        return BackendError.of(
            "DEV05",
            "memory does not suffice",
            str(self._device),
            what,
            "one that fits",
            "use tile: auto (tiling: blend), a smaller tile or precision bf16",
        )

    # One forward pass -----------------------------------------------------------------------------

    def _tile(self, view: View, plan: Plan, rows: Piece, columns: Piece) -> Tensor:
        """The output of a tile, as large as the tile within the image times the scale."""
        bottom, right = min(rows.stop, plan.rows.length), min(columns.stop, plan.columns.length)
        lq = view(slice(rows.start, bottom), slice(columns.start, right))
        height, width = lq.shape[-2:]
        lq = _padded(lq, rows.stop - rows.start, columns.stop - columns.start)
        return self._forward(lq)[..., : height * self._scale, : width * self._scale]

    def _forward(self, lq: Tensor) -> Tensor:
        forms = 1 if self._forms_outside else self.options.ensemble
        outputs = [_turned_back(self._restored(_turned(lq, k)), k) for k in range(forms)]
        return outputs[0] if forms == 1 else torch.stack(outputs).mean(dim=0)

    def _restored(self, lq: Tensor) -> Tensor:
        height, width = lq.shape[-2:]
        padded = _padded(lq, self._size.padded(height), self._size.padded(width))
        with autocast(self.options.precision, self._device):
            output = self._network(padded)
        finest = output[0] if isinstance(output, tuple) else output
        return finest[..., : height * self._scale, : width * self._scale]


def _about(plan: Plan) -> tuple[int, int, int]:
    return plan.side, plan.tiles, plan.overlap


def _as_image(output: Tensor) -> np.ndarray:
    """`(1, C, h, w)` -> `(h, w[, C])` float32."""
    return images.interleaved(output[0].float().cpu().numpy())


def _put(output: Tensor, onto: Rows, bits: int) -> None:
    """Hand `(1, C, h, w)` on, clamped and rounded to uint8 or uint16, some rows at a time: rounding
    takes several times their memory."""
    for part in output.split(STRIP, dim=-2):
        onto.add(images.interleaved(images.quantise(part[0].float().cpu().numpy(), bits)))


def _part(image: np.ndarray, device: torch.device) -> Tensor:
    """`(h, w[, C])` -> `(1, C, h, w)` in [0, 1] on `device`."""
    return torch.from_numpy(images.to_float(image)).to(device).unsqueeze(0)


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
