"""The Triton kernels in Triton's interpreter. `test_selective_scan_triton.py` runs this file.

Not collected by itself: it needs TRITON_INTERPRET=1 before triton is imported, and a process in
which nothing else has imported triton.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scan_cases
import torch
from triton.runtime import interpreter

from restore.ops.selective_scan import reference
from restore.ops.selective_scan.backend import ScanInputs
from restore.ops.selective_scan.triton_backend import BACKEND, TritonBackend

CUT = TritonBackend(programs=10**6, segment_tiles=1)
"""As many segments as a sequence has tiles of 16 steps."""
SOME = TritonBackend(programs=10**6, segment_tiles=2)
"""Segments of two tiles, the last one shorter."""
GOLDEN = [
    ("g1_n16", BACKEND), ("g4_L1", BACKEND), ("g4_n1_mairT", SOME), ("g4_odd", SOME),
    ("noD_nobias", BACKEND), ("nosoftplus", CUT), ("tiny_g1", CUT), ("wild", SOME),
]  # fmt: skip
SLOW = [("g4_n16", SOME), ("slow", SOME), ("g4_long", TritonBackend(programs=16))]

step_by_step = interpreter.ScanOps.generic_scan


def in_doublings(self: Any, tensors: list[Any]) -> list[Any]:
    """What `generic_scan` computes element by element, by whole arrays: 100 times faster."""
    whole = [np.moveaxis(t.handle.data, self.axis, 0).copy() for t in tensors]
    hop = 1
    while hop < len(whole[0]):
        done = self.combine_fn.fn(*(w[:-hop] for w in whole), *(w[hop:] for w in whole))
        for array, values in zip(whole, done, strict=True):
            array[hop:] = values
        hop *= 2
    return [
        self.to_tensor(np.moveaxis(array, 0, self.axis), t.dtype)
        for array, t in zip(whole, tensors, strict=True)
    ]


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fresh memory holds NaN: what a kernel forgets to write shows. Scans go fast."""
    monkeypatch.setattr(interpreter.ScanOps, "generic_scan", in_doublings)
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def golden(shared: Path, name: str, backend: TritonBackend) -> None:
    with np.load(shared / f"golden/mair/open_scan_{name}.npz") as file:
        held = {key: torch.from_numpy(file[key]) for key in file.files}
    tensors = scan_cases.single([held.get(f"in_{key}") for key in scan_cases.SCAN[1:]], "cpu")
    inputs = ScanInputs(*tensors, bool(held["delta_softplus"]))
    y = backend.scan(inputs)
    gradients = backend.scan_grads(held["cotangent"].float(), inputs)
    truth = [held["y"], *(held.get(f"grad_{key}") for key in scan_cases.SCAN[1:])]
    scan_cases.check(scan_cases.SCAN, [y, *gradients], truth, 1e-6)


@pytest.mark.parametrize(("name", "backend"), GOLDEN, ids=[name for name, _ in GOLDEN])
def test_scan_of_reference_numbers(shared: Path, name: str, backend: TritonBackend) -> None:
    golden(shared, name, backend)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "backend"), SLOW, ids=[name for name, _ in SLOW])
def test_scan_of_long_reference_numbers(shared: Path, name: str, backend: TritonBackend) -> None:
    golden(shared, name, backend)


@pytest.mark.parametrize("backend", [BACKEND, CUT], ids=["one segment", "cut"])
@pytest.mark.parametrize(
    ("shape", "softplus", "skip", "bias"),
    [
        ((1, 1, 1, 1, 1), True, True, True),
        ((1, 2, 33, 3, 17), True, True, False),
        ((2, 1, 5, 2, 48), False, False, True),
    ],
)
def test_scan(
    backend: TritonBackend, shape: tuple[int, ...], softplus: bool, skip: bool, bias: bool
) -> None:
    inputs = scan_cases.scan_inputs(*shape, skip=skip, bias=bias)
    if not softplus:
        inputs[1] = inputs[1].abs() / 9  # steps are positive
        inputs[6] = inputs[6].abs() / 9
    scan_cases.check_scan(backend, inputs, softplus)


def test_scan_of_many_states() -> None:
    scan_cases.check_scan(BACKEND, scan_cases.scan_inputs(1, 1, 2, 256, 3), True)


def test_scan_in_the_interpreters_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter.ScanOps, "generic_scan", step_by_step)
    scan_cases.check_scan(CUT, scan_cases.scan_inputs(1, 1, 2, 1, 18), True)


def test_steps_of_any_size() -> None:
    """Softplus and its slope from 1e-13 to past its threshold; sums of decays far below 1e-38."""
    inputs = scan_cases.scan_inputs(1, 1, 4, 2, 21, bias=False)
    inputs[1] = torch.linspace(-30, 30, 84, dtype=torch.float64).view(1, 4, 21)
    inputs[1] += 0.01 * (inputs[1] > 19).double()  # off the threshold, where the slope jumps
    scan_cases.check_scan(CUT, inputs, True)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_stays_visible(value: float) -> None:
    inputs = scan_cases.single(scan_cases.scan_inputs(1, 1, 3, 2, 20), "cpu")
    inputs[1][0, 1, 4] = value
    y = BACKEND.scan(ScanInputs(*inputs, True))
    truth = reference.selective_scan(*inputs, True)
    assert torch.equal(y.isfinite(), truth.isfinite())


@pytest.mark.parametrize("backend", [BACKEND, CUT], ids=["one segment", "cut"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 2, 3, 2, 1), (2, 35, 4, 5, 3, 2), (1, 20, 2, 34, 1, 3), (1, 17, 1, 2, 2, 0)]
)
def test_map_scan(backend: TritonBackend, shape: tuple[int, ...]) -> None:
    scan_cases.check_map(backend, scan_cases.map_inputs(*shape))


def test_map_scan_in_segments_of_several_tiles() -> None:
    scan_cases.check_map(SOME, scan_cases.map_inputs(1, 70, 1, 2, 2, 1))


def test_map_scan_with_offsets_of_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("restore.ops.selective_scan.triton_problem.NARROW", 1)
    scan_cases.check_map(CUT, scan_cases.map_inputs(2, 19, 2, 3, 2, 1))


@pytest.mark.parametrize("programs", [1, 64], ids=["one part", "parts"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 37, 4, 90), (3, 33, 2, 360)])
def test_merge(programs: int, shape: tuple[int, ...]) -> None:
    scan_cases.check_merge(TritonBackend(programs=programs), scan_cases.merge_inputs(*shape))
