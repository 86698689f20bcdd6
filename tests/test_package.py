"""What is built of the project: a wheel of the whole package, a source archive of every file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from restore import __version__

ROOT = Path(__file__).resolve().parent.parent
BUILD = """
import sys
from setuptools import build_meta
into = sys.argv[1]
build_meta.build_sdist(into)
build_meta.build_wheel(into)
"""
MODULES = """
import importlib, pkgutil, restore
for module in pkgutil.walk_packages(restore.__path__, "restore."):
    if not module.name.endswith(("__main__", "bridges.basicsr", "onnx_form")):
        if "triton_kernels" not in module.name:
            importlib.import_module(module.name)
"""  # those left out need packages of the extras


def listed() -> list[str]:
    """The project's files as git knows them; skips without git, as in an unpacked archive."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source archive of a copy of the project's files."""
    copy, out = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("built")
    for name in listed():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-c", BUILD, str(out)]
    done = subprocess.run(command, cwd=copy, env=alone(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed, without what it depends on."""
    target = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    wheel = next(built.glob("*.whl"))
    subprocess.run([*command, "--target", target, wheel], check=True, capture_output=True)
    return target


def alone(**more: str) -> dict[str, str]:
    """The environment without a way to this checkout."""
    return {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, **more}


def run(installed: Path, *words: str) -> str:
    """What a Python that finds the installed package says, warnings being errors."""
    command = [sys.executable, "-W", "error", *words]
    environment = alone(PYTHONPATH=str(installed))
    done = subprocess.run(
        command, cwd=installed.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_and_nothing_else(built: Path) -> None:
    about = f"restore-{__version__}.dist-info/"
    with zipfile.ZipFile(next(built.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert {name for name in names if not name.startswith(about)} == {
        name for name in listed() if name.startswith("restore/")
    }
    assert {f"{about}licenses/LICENSE", f"{about}licenses/docs/licences.md"} <= names


def test_the_source_archive_holds_every_file(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    made = {"PKG-INFO", "setup.cfg"}
    assert {name for name in files - made if not name.startswith("restore.egg-info/")} == set(
        listed()
    )


def test_an_installed_package_answers(installed: Path) -> None:
    assert run(installed, "-c", "import restore; print(restore.__file__)").startswith(
        str(installed)
    )
    assert run(installed, "-m", "restore.commands", "--version") == f"{__version__}\n"
    assert "SPAN/SPAN/SRx4" in run(installed, "-m", "restore.commands", "reproduce", "--list")


@pytest.mark.slow
def test_every_module_of_an_installed_package_is_imported_without_a_warning(
    installed: Path,
) -> None:
    run(installed, "-c", MODULES)
