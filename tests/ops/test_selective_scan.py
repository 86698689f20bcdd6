"""Every backend of the selective scan against the definition: values and gradients.

Tolerances: float64 1e-10, float32 1e-4, bfloat16 and float16 inputs 2e-2, each relative to the
largest value of the tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from restore.ops.selective_scan import (
    available_backends,
    map_scan,
    merge_directions,
    reference,
    selective_scan,
)
from restore.ops.selective_scan.choice import BACKENDS

GOLDEN = [
    "g1_n16", "g4_L1", "g4_long", "g4_n16", "g4_n1_mairT", "g4_odd", "noD_nobias", "nosoftplus",
    "slow", "tiny_g1", "wild",
]  # fmt: skip
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 2e-2}
SCAN_INPUTS = ("u", "delta", "A", "B", "C", "D", "delta_bias")

Grads = dict[str, Tensor | None]


def device_of(backend: str) -> str:
    devices = BACKENDS[backend].devices
    return "cuda" if devices == ("cuda",) else "cpu"


HERE = [b for b in available_backends() if device_of(b) == "cpu" or torch.cuda.is_available()]
PRECISIONS = [
    (backend, dtype)
    for backend in HERE
    for dtype in (torch.float64, torch.float32)
    if (dtype == torch.float32 or BACKENDS[backend].float64)
    and (dtype == torch.float64 or backend != "reference")
]
"""The truth in float64 only, every other backend in all it can."""


@pytest.fixture
def nan_memory() -> Iterator[None]:
    """Fresh memory holds NaN, so that what a backend forgets to write is seen."""
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.utils.deterministic.fill_uninitialized_memory
        for fresh in (torch.empty(3), torch.ones(3).new_empty(3), torch.empty_like(torch.ones(3))):
            assert fresh.isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def close(found: Tensor | None, truth: Tensor | None, tolerance: float, name: str) -> None:
    assert (found is None) == (truth is None), name
    if found is None or truth is None:
        return
    assert found.shape == truth.shape, name
    difference = (found.double().cpu() - truth.double()).abs().max()
    assert difference <= tolerance * truth.abs().max().clamp_min(1e-30), (name, difference)


def run(
    op: Callable[..., Any], inputs: dict[str, Any], cotangents: tuple[Tensor, ...], **settings: Any
) -> tuple[tuple[Tensor, ...], Grads]:
    """Outputs of `op`, and the gradients of its floating inputs under the cotangents."""
    leaves = {
        name: t.detach().clone().requires_grad_() if t is not None and t.is_floating_point() else t
        for name, t in inputs.items()
    }
    outputs = op(**leaves, **settings)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    pairs = zip(outputs, cotangents, strict=True)
    torch.autograd.backward(outputs, [c.to(o.device, o.dtype) for o, c in pairs])
    found = {name: t.grad for name, t in leaves.items() if t is not None and t.requires_grad}
    return tuple(o.detach() for o in outputs), found


def cast(inputs: dict[str, Any], dtype: torch.dtype, device: str = "cpu") -> dict[str, Any]:
    return {
        name: t if t is None else t.to(device, dtype if t.is_floating_point() else t.dtype)
        for name, t in inputs.items()
    }


def compare(
    op: Callable[..., Any],
    truth: Callable[..., Any],
    inputs: dict[str, Any],
    backend: str,
    dtype: torch.dtype,
    **settings: Any,
) -> None:
    """`op` by a backend in `dtype` against the float64 truth on the same, rounded, inputs."""
    ours = cast(inputs, dtype, device_of(backend))
    exact = cast(cast(inputs, dtype), torch.float64)
    shapes = truth(**exact, **settings)
    shapes = shapes if isinstance(shapes, tuple) else (shapes,)
    random = torch.Generator().manual_seed(7)
    cotangents = tuple(
        torch.randn(t.shape, generator=random, dtype=torch.float64).to(dtype) for t in shapes
    )
    outputs, grads = run(truth, exact, cotangents, **settings)
    found, found_grads = run(op, ours, cotangents, **settings, backend=backend)
    for number, (own, wanted) in enumerate(zip(found, outputs, strict=True)):
        close(own, wanted, TOLERANCE[dtype], f"output {number}")
    for name, wanted in grads.items():
        own = found_grads[name]
        assert own is not None and own.dtype == dtype
        close(own, wanted, TOLERANCE[dtype], name)


def scan_inputs(
    batch: int, groups: int, width: int, states: int, steps: int, *, D: bool = True,
    bias: bool = True, seed: int = 0,
) -> dict[str, Any]:  # fmt: skip
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    channels = groups * width
    return {
        "u": normal(batch, channels, steps),
        "delta": normal(batch, channels, steps) - 1,
        "A": -torch.exp(normal(channels, states)),
        "B": normal(batch, groups, states, steps),
        "C": normal(batch, groups, states, steps),
        "D": normal(channels) if D else None,
        "delta_bias": normal(channels) if bias else None,
    }


def map_inputs(
    batch: int, directions: int, width: int, states: int, pixels: int, rank: int, seed: int = 0
) -> dict[str, Any]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    paths = [torch.randperm(pixels, generator=random) for _ in range(directions)]
    return {
        "x": normal(batch, pixels, width),
        "projected": normal(batch, pixels, directions, rank + 2 * states),
        "order": torch.stack(paths),
        "step_weight": normal(directions, width, rank),
        "step_bias": normal(directions, width) - 1,
        "A": -torch.exp(normal(directions, width, states)),
        "D": normal(directions, width),
    }


def merge_inputs(batch: int, pixels: int, directions: int, width: int) -> dict[str, Any]:
    random = torch.Generator().manual_seed(pixels)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    return {
        "y": normal(batch, pixels, directions, width),
        "gate": torch.sigmoid(normal(batch, directions, width)),
        "z": normal(batch, pixels, width),
        "weight": normal(width),
        "bias": normal(width),
    }


# Reference numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "dtype"), PRECISIONS)
@pytest.mark.parametrize("name", GOLDEN)
def test_golden(
    shared: Path, name: str, backend: str, dtype: torch.dtype, nan_memory: None
) -> None:
    with np.load(shared / f"golden/mair/open_scan_{name}.npz") as file:
        arrays = {key: torch.from_numpy(file[key]) for key in file.files}
    inputs = {key: arrays.get(f"in_{key}") for key in SCAN_INPUTS}
    softplus = bool(arrays["delta_softplus"])
    (y,), grads = run(
        selective_scan, cast(inputs, dtype, device_of(backend)), (arrays["cotangent"],),
        softplus=softplus, backend=backend,
    )  # fmt: skip
    close(y, arrays["y"], TOLERANCE[dtype], "y")
    for key, gradient in grads.items():
        close(gradient, arrays[f"grad_{key}"], TOLERANCE[dtype], key)


def scalar_scan(inputs: dict[str, Any], dy: list[list[float]]) -> tuple[Any, Any, Any]:
    """y, du and ddelta of batch 1, one group, two channels, step by step in Python's floats."""
    ys, dus, ddeltas = [], [], []
    B, C = inputs["B"][0, 0].tolist(), inputs["C"][0, 0].tolist()
    for e in range(2):
        u, delta = inputs["u"][0, e].tolist(), inputs["delta"][0, e].tolist()
        A, D, steps = inputs["A"][e].tolist(), inputs["D"][e].item(), len(u)
        y, du, ddelta = ([D * v for v in u], [D * v for v in dy[e]], [0.0] * steps)
        for n, a in enumerate(A):
            states = [0.0]
            for t in range(steps):
                added = delta[t] * B[n][t] * u[t]
                states.append(math.exp(delta[t] * a) * states[-1] + added)
                y[t] += C[n][t] * states[-1]
            slope = 0.0
            for t in reversed(range(steps)):
                slope += C[n][t] * dy[e][t]
                decay = math.exp(delta[t] * a)
                du[t] += slope * delta[t] * B[n][t]
                ddelta[t] += slope * (B[n][t] * u[t] + a * decay * states[t])
                slope *= decay
        ys.append(y)
        dus.append(du)
        ddeltas.append(ddelta)
    return tuple(torch.tensor([rows], dtype=torch.float64) for rows in (ys, dus, ddeltas))


@pytest.mark.parametrize("backend", [b for b in HERE if b != "reference"])
def test_65537_steps(backend: str, nan_memory: None) -> None:
    inputs = scan_inputs(1, 1, 2, 2, 65_537, bias=False)
    inputs["delta"] = inputs["delta"].exp().clamp_max(2)
    dy = torch.randn(1, 2, 65_537, dtype=torch.float64)
    truth = scalar_scan(inputs, dy[0].tolist())
    ours = cast(inputs, torch.float32, device_of(backend))
    (y,), grads = run(selective_scan, ours, (dy,), backend=backend)
    for found, wanted in zip((y, grads["u"], grads["delta"]), truth, strict=True):
        close(found, wanted, 1e-4, "a long row")


# Shapes, precisions, memory -----------------------------------------------------------------------


@pytest.mark.parametrize("backend", [b for b in HERE if b != "reference"])
@settings(max_examples=40, derandomize=True)
@given(data=st.data())
def test_any_shape(backend: str, data: st.DataObject) -> None:
    groups, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 19))
    inputs = scan_inputs(
        data.draw(st.integers(1, 3)), groups, width, data.draw(st.integers(1, 33)),
        data.draw(st.integers(1, 70)), D=data.draw(st.booleans()), bias=data.draw(st.booleans()),
    )  # fmt: skip
    softplus = data.draw(st.booleans())
    if not softplus:
        inputs["delta"] = inputs["delta"].exp()
        inputs["delta_bias"] = None if inputs["delta_bias"] is None else inputs["delta_bias"].exp()
    dtypes = [d for b, d in PRECISIONS if b == backend]
    compare(
        selective_scan, truth_scan, inputs, backend, data.draw(st.sampled_from(dtypes)),
        softplus=softplus,
    )  # fmt: skip


def truth_scan(softplus: bool = False, **inputs: Any) -> Tensor:
    return reference.selective_scan(**inputs, softplus=softplus)


@pytest.mark.parametrize(("backend", "dtype"), [p for p in PRECISIONS if p[0] != "reference"])
@pytest.mark.parametrize("states", [1, 2, 15, 16, 17, 33])
def test_blocks_end_anywhere(
    states: int, backend: str, dtype: torch.dtype, nan_memory: None
) -> None:
    for steps in (1, 15, 16, 17, 63, 64, 65, 257, 300):
        inputs = scan_inputs(2, 2, 3, states, steps)
        compare(selective_scan, truth_scan, inputs, backend, dtype, softplus=True)


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(backend: str, dtype: torch.dtype, nan_memory: None) -> None:
    inputs = scan_inputs(2, 2, 5, 4, 45)
    compare(selective_scan, truth_scan, inputs, backend, dtype, softplus=True)
    ours = cast(inputs, dtype, device_of(backend))
    assert selective_scan(**ours, backend=backend).dtype == dtype
    ours["A"] = ours["A"].float()  # as in a network under autocast: parameters are float32
    ours = {name: t.requires_grad_() for name, t in ours.items()}
    y = selective_scan(**ours, softplus=True, backend=backend)
    y.float().square().sum().backward()
    assert y.dtype == dtype
    assert {name: t.grad.dtype for name, t in ours.items()} == {
        name: torch.float32 if name == "A" else dtype for name in SCAN_INPUTS
    }


@pytest.mark.parametrize("backend", HERE)
def test_total_decay_and_huge_steps_stay_finite(backend: str) -> None:
    inputs = scan_inputs(1, 1, 4, 8, 200)
    inputs["delta"] *= 100
    inputs["A"] *= 100
    compare(selective_scan, truth_scan, inputs, backend, torch.float32, softplus=True)


@pytest.mark.parametrize("backend", HERE)
def test_strided_inputs(backend: str) -> None:
    inputs = cast(scan_inputs(2, 2, 3, 4, 21), torch.float32, device_of(backend))
    truth, wanted = run(
        selective_scan, inputs, (torch.ones(2, 6, 21),), softplus=True, backend=backend
    )
    leaves = {name: t.clone().requires_grad_() for name, t in inputs.items()}
    strided = {
        name: torch.stack([t, t], dim=-1)[..., 1] if name != "u" else t.mT.contiguous().mT
        for name, t in leaves.items()
    }
    assert not any(t.is_contiguous() for t in strided.values())
    y = selective_scan(**strided, softplus=True, backend=backend)
    y.backward(torch.ones((), device=y.device).expand_as(y))  # a cotangent without memory
    torch.testing.assert_close(y.detach(), truth[0], rtol=0, atol=0)
    for name, leaf in leaves.items():
        torch.testing.assert_close(leaf.grad, wanted[name], rtol=0, atol=0)


@pytest.mark.parametrize("backend", HERE)
@pytest.mark.parametrize("wanted", [("u",), ("A", "D"), ("B",), ("delta_bias", "C"), ()])
def test_some_inputs_need_gradients(backend: str, wanted: tuple[str, ...]) -> None:
    inputs = cast(scan_inputs(1, 2, 3, 4, 9), torch.float32, device_of(backend))
    _, all_of_them = run(
        selective_scan, inputs, (torch.ones(1, 6, 9),), softplus=True, backend=backend
    )
    leaves = {name: t.clone().requires_grad_(name in wanted) for name, t in inputs.items()}
    y = selective_scan(**leaves, softplus=True, backend=backend)
    assert y.requires_grad == bool(wanted)
    if wanted:
        y.sum().backward()
    for name, leaf in leaves.items():
        assert (leaf.grad is not None) == (name in wanted)
        if leaf.grad is not None:
            torch.testing.assert_close(leaf.grad, all_of_them[name], rtol=0, atol=0)


# Maps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "dtype"), PRECISIONS)
@pytest.mark.parametrize(
    ("batch", "directions", "width", "states", "pixels", "rank"),
    [(1, 4, 12, 16, 35, 3), (2, 4, 18, 1, 64, 2), (2, 1, 5, 5, 17, 1), (1, 3, 33, 8, 1, 4)],
)
def test_map_scan(
    batch: int, directions: int, width: int, states: int, pixels: int, rank: int, backend: str,
    dtype: torch.dtype, nan_memory: None,
) -> None:  # fmt: skip
    inputs = map_inputs(batch, directions, width, states, pixels, rank)
    compare(map_scan, reference.map_scan, inputs, backend, dtype)


@pytest.mark.parametrize("backend", HERE)
def test_map_scan_answers_in_float32(backend: str) -> None:
    inputs = cast(map_inputs(1, 4, 6, 3, 20, 2), torch.bfloat16, device_of(backend))
    y, mean = map_scan(**inputs, backend=backend)
    truth, _ = reference.map_scan(**cast(cast(inputs, torch.float64), torch.float64, "cpu"))
    assert (y.dtype, mean.dtype) == (torch.float32, torch.float32)
    close(y, truth, 1e-4, "y")  # nothing is rounded on the way


@pytest.mark.parametrize("backend", HERE)
def test_one_of_the_maps_results_is_enough(backend: str) -> None:
    inputs = map_inputs(1, 2, 3, 2, 10, 1)
    ours = cast(inputs, torch.float32, device_of(backend))
    for number in (0, 1):
        leaf, exact = ours["x"].clone().requires_grad_(), inputs["x"].clone().requires_grad_()
        map_scan(**{**ours, "x": leaf}, backend=backend)[number].sum().backward()
        reference.map_scan(**{**inputs, "x": exact})[number].sum().backward()
        close(leaf.grad, exact.grad, 1e-4, f"output {number} alone")


@pytest.mark.parametrize(("backend", "dtype"), PRECISIONS)
@pytest.mark.parametrize("shape", [(1, 35, 4, 12), (2, 1, 4, 33), (3, 20, 1, 7), (1, 9, 2, 3)])
def test_merge(
    shape: tuple[int, int, int, int], backend: str, dtype: torch.dtype, nan_memory: None
) -> None:
    inputs = merge_inputs(*shape)
    compare(merge_directions, reference.merge_directions, inputs, backend, dtype, eps=1e-5)


@pytest.mark.parametrize("backend", HERE)
def test_merge_answers_in_the_precision_of_z(backend: str) -> None:
    inputs = cast(merge_inputs(1, 12, 4, 6), torch.float32, device_of(backend))
    inputs["z"] = inputs["z"].bfloat16()
    out = merge_directions(**inputs, backend=backend)
    truth = reference.merge_directions(**cast(inputs, torch.float64, "cpu"), eps=1e-5)
    assert out.dtype == torch.bfloat16
    close(out, truth, 1e-2, "out")
