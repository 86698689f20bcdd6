"""The Triton backend without a GPU: in the interpreter, and compiled for Hopper.

The kernels are interpreted in a process of their own, as TRITON_INTERPRET counts when triton is
first imported. On a GPU: tests/test_gpu_scan.py.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from restore.ops.selective_scan import triton_backend, triton_problem

HERE = Path(__file__).parent
needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="triton is not installed (requirements-test.txt has it)"
)


def run(*words: str | Path, interpret: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]),
        "TRITON_INTERPRET": interpret,
    }
    return subprocess.run(
        [sys.executable, *words], cwd=HERE.parents[1], env=environment,
        capture_output=True, text=True, timeout=1200,
    )  # fmt: skip


def interpreted(marked: str) -> None:
    done = run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", marked,
        HERE / "triton_interpreted.py", interpret="1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr


@needs_triton
def test_kernels_in_the_interpreter() -> None:
    interpreted("not slow")


@needs_triton
@pytest.mark.slow
def test_kernels_in_the_interpreter_on_long_sequences() -> None:
    interpreted("slow")


@needs_triton
@pytest.mark.skipif(sys.platform != "linux", reason="triton's assembler is for Linux")
def test_kernels_compile_for_hopper() -> None:
    """Forward in registers alone and without a shuffle: a lane has its channel to itself."""
    done = run(HERE / "triton_compiled.py", interpret="0")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {row.pop("kernel"): row for row in map(json.loads, done.stdout.splitlines())}
    assert len(found) == 9
    for kernel in ("map outputs", "map borders", "plain outputs", "starts", "adjoint"):
        assert found[kernel]["stack"] == found[kernel]["shuffles"] == 0, (kernel, found[kernel])
    for kernel in ("map gradients", "plain gradients"):
        assert found[kernel]["stack"] < 512, (kernel, found[kernel])  # bytes: some spills are known
        assert found[kernel]["shuffles"] < 256, (kernel, found[kernel])  # sums over 32 channels
    assert found["merge"]["stack"] == 0 and found["merge"]["registers"] <= 64


def test_says_why_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_backend, "find_spec", lambda name: None)
    assert "pip install triton" in (triton_backend.unavailable() or "")
    monkeypatch.setattr(triton_backend, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "CUDA" in (triton_backend.unavailable() or "")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert triton_backend.unavailable() is None


@given(
    tiles=st.integers(1, 5000), chains=st.integers(1, 5000), programs=st.integers(1, 2000),
    least=st.integers(1, 8),
)  # fmt: skip
def test_segments_cover_a_sequence(tiles: int, chains: int, programs: int, least: int) -> None:
    segments, length = triton_problem.segmentation(tiles, chains, programs, least)
    assert (segments - 1) * length < tiles <= segments * length
    assert segments == 1 or length >= least
    assert segments * chains < programs + chains  # no more than it takes
