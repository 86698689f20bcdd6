"""What every test may ask for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch is imported: on tensors this small, threads that wait for each other cost 10x.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and real images beside the checkout."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the reference numbers and images of {folder}, which is not there")
    return folder
