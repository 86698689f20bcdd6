"""The builder of compiled kernels: once per source, and a reason where there is nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from restore.ops import native
from restore.ops.native import BuildError, library


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESTORE_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "kernels"
    folder.mkdir()
    (folder / "number.h").write_text("#define NUMBER 42\n")
    (folder / "answer.cpp").write_text(
        '#include "number.h"\nextern "C" int answer() { return NUMBER; }\n'
    )
    try:
        native._compiler()
    except BuildError:
        pytest.skip("no C++ compiler on this machine")
    return folder


def test_a_folder_is_compiled_once_and_again_when_it_changes(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert library("test", sources).answer() == 42
    with monkeypatch.context() as patched:
        patched.setattr(native, "_compile", lambda *_: pytest.fail("compiled again"))
        assert library("test", sources).answer() == 42
    (sources / "number.h").write_text("#define NUMBER 43\n")
    assert library("test", sources).answer() == 43
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_reasons(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (sources / "answer.cpp").write_text("this is no C++\n")
    with pytest.raises(BuildError, match="failed: .*answer.cpp.*error: "):
        library("test", sources)
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BuildError, match="CXX=no-such-compiler"):
        library("test", sources)


def test_a_cache_that_cannot_be_written(sources: Path, tmp_path: Path) -> None:
    """A folder of the process stands in, and is gone when it ends."""
    (tmp_path / "cache").write_text("a file in the way\n")
    (tmp_path / "tmp").mkdir()
    code = (
        "import pathlib, sys; from restore.ops.native import library;"
        "print(library('test', pathlib.Path(sys.argv[1])).answer())"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, "-c", code, str(sources)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "42\n", "")
    assert list((tmp_path / "tmp").iterdir()) == []
