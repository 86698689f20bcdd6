"""Floor 4. What a forward pass costs, counted operation by operation: multiply-adds, activations
and the bytes of the tensors that are alive at once.

Nothing is read off shapes of layers: the counts follow what runs, on any device, `meta` included.
One multiply-add (MAC) counts 1; normalisations, activation functions and resizing count 0.
"""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten


def _convolution(args: tuple[Any, ...], out: Any) -> int:
    """Each real product once: a transposed convolution multiplies inputs, not outputs."""
    x, weight, transposed = args[0], args[1], args[6]
    pixels = x.numel() // x.shape[1] if transposed else out.numel() // out.shape[1]
    return pixels * weight.numel()


def _product(args: tuple[Any, ...], out: Any) -> int:
    return out.numel() * args[-2].shape[-1]


def _attention(args: tuple[Any, ...], out: Any) -> int:
    """The products q·kᵀ and p·v; `out` may come with statistics."""
    q, k, v = args[:3]
    return q.numel() * k.shape[-2] + q.numel() // q.shape[-1] * k.shape[-2] * v.shape[-1]


def _transform(args: tuple[Any, ...], out: Any) -> int:
    """N / 2 · log2 N butterflies of 4 MACs for a complex transform; half for a real one."""
    sides, complex_ends = args[1], args[0].is_complex() and out.is_complex()
    larger = out if out.numel() >= args[0].numel() else args[0]
    points = math.prod(larger.shape[side] for side in sides)
    batch = larger.numel() // points
    butterflies = batch * points * math.log2(points) / 2 if points > 1 else 0
    return round(butterflies * 4 / (1 if complex_ends else 2))


def _scan(state_steps: int, steps: int) -> int:
    """The field's convention for a selective scan: 9 per step and state, 1 per step for D."""
    return 9 * state_steps + steps


def _selective_scan(args: tuple[Any, ...], out: Any) -> int:
    u, states = args[0], args[2].shape[1]
    return _scan(u.numel() * states, u.numel())


def _map_scan(args: tuple[Any, ...], out: Any) -> int:
    """The scans of all directions, and the product that makes their steps."""
    y, (channels, rank), states = out[0], args[3].shape[1:], args[5].shape[-1]
    return _scan(y.numel() * states, y.numel()) + y.numel() // channels * channels * rank


Rule = Callable[[tuple[Any, ...], Any], int]
"""An operation's positional arguments and its output -> its MACs."""
RULES: dict[str, tuple[str, Rule]] = {
    "aten::convolution": ("convolution", _convolution),
    "aten::mm": ("product", _product),
    "aten::bmm": ("product", _product),
    "aten::addmm": ("product", lambda args, out: out.numel() * args[1].shape[-1]),
    "aten::baddbmm": ("product", lambda args, out: out.numel() * args[1].shape[-1]),
    "aten::_scaled_dot_product_flash_attention": ("attention", _attention),
    "aten::_scaled_dot_product_flash_attention_for_cpu": ("attention", _attention),
    "aten::_scaled_dot_product_efficient_attention": ("attention", _attention),
    "aten::_scaled_dot_product_cudnn_attention": ("attention", _attention),
    "aten::_fft_c2c": ("fft", _transform),
    "aten::_fft_r2c": ("fft", _transform),
    "aten::_fft_c2r": ("fft", _transform),
    "restore::selective_scan": ("scan", _selective_scan),
    "restore::map_scan": ("scan", _map_scan),
}
_WHOLE = {torch.ops.prim.device.default}  # operations that turned out not to be made of others


class Ledger(TorchDispatchMode):
    """Within it, every operation is entered. Call the network under `torch.no_grad()`."""

    def __init__(self) -> None:
        super().__init__()
        self.macs: Counter[str] = Counter()
        """By kind: convolution, product, attention, fft, scan."""
        self.activations = 0
        """Elements that the operations of RULES gave."""
        self.peak = 0
        """Bytes of the tensors made within that were alive at once, at most."""
        self._alive: dict[int, weakref.ref[Any]] = {}
        self._bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = func._schema.name
        if name not in RULES and func not in _WHOLE:
            with self:  # an operation made of others is entered as those
                made = func.decompose(*args, **(kwargs or {}))
            if made is not NotImplemented:
                return made
            _WHOLE.add(func)
        given = _tensors((args, kwargs))
        for tensor in given:
            self._hold(tensor, new=False)
        out = _run(func, args, kwargs or {}, given)
        if name in RULES:
            kind, rule = RULES[name]
            self.macs[kind] += rule(args, out)
            self.activations += _tensors(out)[0].numel()
        for tensor in _tensors(out):
            self._hold(tensor, new=True)
        return out

    def _hold(self, tensor: Tensor, *, new: bool) -> None:
        """Count a storage while it lives; one that was there before counts nothing."""
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._alive:
            return
        size = storage.nbytes() if new else 0

        def freed(_: object) -> None:
            del self._alive[key]
            self._bytes -= size

        self._alive[key] = weakref.ref(storage, freed)
        self._bytes += size
        self.peak = max(self.peak, self._bytes)


# On `meta` ----------------------------------------------------------------------------------------
#
# What an operation gives is worked out once for equal inputs: a network repeats its blocks, and
# torch works out shapes slowly, in Python. Remembered are new tensors that fill their storages;
# views and changes in place are run each time.

_MADE: dict[tuple[Any, ...], Any] = {}
"""Operation and the form of its inputs -> that of its output; None for what is run each time."""


@dataclass(frozen=True)
class _Form:
    """A tensor, without its numbers."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    dtype: torch.dtype

    @staticmethod
    def of(tensor: Tensor) -> _Form:
        return _Form(
            tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()), tensor.dtype
        )

    def made(self) -> Tensor:
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device="meta")


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor]) -> Any:
    """`func(*args, **kwargs)`; `given`: the tensors among them."""
    if not given or not all(tensor.is_meta for tensor in given):
        return func(*args, **kwargs)
    key = func, _form(args), _form(tuple(kwargs.items()))
    form = _MADE.get(key)
    if form is not None:
        return tuple(map(_from_form, form)) if isinstance(form, tuple) else _from_form(form)
    out = func(*args, **kwargs)
    if key not in _MADE:
        new = not func._schema.is_mutable and _is_new(out, given)
        _MADE[key] = _form(out) if new else None
    return out


def _form(value: Any) -> Any:
    """What tells `value` from others: of tensors the form, of the rest type and value."""
    if isinstance(value, Tensor):
        return _Form.of(value)
    if isinstance(value, tuple | list):
        return tuple(map(_form, value))
    return type(value), value


def _from_form(form: Any) -> Any:
    """The tensor or number of this form."""
    return form.made() if isinstance(form, _Form) else form[1]


def _is_new(out: Any, given: list[Tensor]) -> bool:
    """Whether `out` is a tensor, or a tuple of tensors and numbers, of which each tensor has a
    storage of its own and fills it."""
    parts = out if isinstance(out, tuple) else (out,)
    tensors = [part for part in parts if isinstance(part, Tensor)]
    others = (part for part in parts if not isinstance(part, Tensor))
    if not tensors or not all(part is None or isinstance(part, int) for part in others):
        return False
    before, own = set(map(_storage, given)), set(map(_storage, tensors))
    return len(own) == len(tensors) and not own & before and all(map(_fills, tensors))


def _storage(tensor: Tensor) -> int:
    """Which storage it is; on `meta` none has an address."""
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


def _fills(tensor: Tensor) -> bool:
    made = _Form.of(tensor).made()
    same = made.untyped_storage().nbytes() == tensor.untyped_storage().nbytes()
    return same and not tensor.storage_offset()


def _tensors(tree: Any) -> list[Tensor]:
    """The tensors in nested tuples, lists and dicts, in order."""
    found: list[Tensor] = []
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Tensor):
            found.append(part)
        elif isinstance(part, tuple | list):
            waiting.extend(reversed(part))
        elif isinstance(part, dict):
            waiting.extend(reversed(part.values()))
    return found
