"""The Triton backend on a GPU against the float64 reference (scripts/gpu_check.sh runs these)."""

from __future__ import annotations

import pytest
import scan_cases
import torch

from restore.ops.selective_scan import triton_backend, triton_problem
from restore.ops.selective_scan.backend import MapInputs
from restore.ops.selective_scan.triton_backend import BACKEND, TritonBackend

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
LIMIT = 1e-5
CUT = TritonBackend(programs=10**6, segment_tiles=1)
SOME = TritonBackend(programs=10**6, segment_tiles=2)


@pytest.fixture(autouse=True)
def bare() -> None:
    reason = triton_backend.unavailable()
    if reason:
        pytest.skip(reason)
    torch.cuda.empty_cache()


def poison() -> None:
    """Leave NaN in the memory that the next outputs get."""
    torch.full((1 << 24,), float("nan"), device="cuda")


@pytest.mark.parametrize("backend", [BACKEND, CUT, SOME, TritonBackend(programs=1)])
@pytest.mark.parametrize("shape", [(1, 1, 1, 1, 1), (2, 3, 33, 5, 67), (1, 4, 90, 16, 300)])
def test_scan(backend: TritonBackend, shape: tuple[int, ...]) -> None:
    poison()
    scan_cases.check_scan(backend, scan_cases.scan_inputs(*shape), True, "cuda", LIMIT)


@pytest.mark.parametrize("states", [1, 8, 32, 100, 256])
def test_scan_of_states(states: int) -> None:
    poison()
    inputs = scan_cases.scan_inputs(1, 2, 40, states, 50)
    scan_cases.check_scan(BACKEND, inputs, True, "cuda", LIMIT)


@pytest.mark.parametrize("backend", [BACKEND, CUT, SOME, TritonBackend(programs=1)])
@pytest.mark.parametrize(
    "shape", [(1, 1, 2, 3, 2, 1), (2, 135, 4, 66, 1, 4), (1, 400, 4, 90, 16, 6)]
)
def test_map_scan(backend: TritonBackend, shape: tuple[int, ...]) -> None:
    poison()
    scan_cases.check_map(backend, scan_cases.map_inputs(*shape), "cuda", LIMIT)


def test_map_scan_with_offsets_of_64_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_problem, "NARROW", 1)
    scan_cases.check_map(BACKEND, scan_cases.map_inputs(2, 50, 4, 40, 4, 2), "cuda", LIMIT)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 137, 4, 90), (1, 1000, 4, 360)])
def test_merge(shape: tuple[int, ...]) -> None:
    poison()
    scan_cases.check_merge(BACKEND, scan_cases.merge_inputs(*shape), "cuda", LIMIT)


def test_the_same_bits_every_time() -> None:
    inputs = MapInputs(*scan_cases.single(scan_cases.map_inputs(2, 500, 4, 90, 16, 6), "cuda"))
    dy = scan_cases.gaussian(2, 500, 4, 90).float().cuda()
    dmean = scan_cases.gaussian(2, 4, 90).float().cuda()
    first, again = (BACKEND.map_scan_grads(dy, dmean, inputs) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
