"""What every test may ask for."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from restore.commands.main import main

# How long an example takes is no property of the code: machines are shared.
settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")

# Before torch is imported: on tensors this small, threads that wait for each other cost 10x.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def fresh_log() -> Iterator[None]:
    """Our log as a new process has it, whatever a command in an earlier test made of it."""
    log = logging.getLogger("restore")
    log.handlers.clear()
    log.propagate = True
    log.setLevel(logging.NOTSET)
    yield
    log.handlers.clear()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers and real images beside the checkout."""
    folder = Path(__file__).parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the reference numbers and images of {folder}, which is not there")
    return folder


@pytest.fixture(scope="session")
def demo_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo set, made once; only to be read."""
    folder = tmp_path_factory.mktemp("sets") / "demo"
    assert main(["prepare", "demo", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, demo_set: Path) -> Path:
    """A user's working folder, with the demo set where option files look for it."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "datasets").mkdir()
    (folder / "datasets/demo").symlink_to(demo_set)
    return folder
