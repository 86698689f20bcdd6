"""Floor 2. Compiles a folder of C++ sources once per machine, with the machine's own compiler.

The libraries are kept in `$RESTORE_CACHE`, by default `$XDG_CACHE_HOME/restore` or
`~/.cache/restore`, under the hash of sources, compiler, flags and processor. `CXX` names the
compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

REMEDY = "install g++ or clang++, or set CXX"


class BuildError(Exception):
    """Why there is no library."""


def library(name: str, sources: Path, arch: str | None = None) -> ctypes.CDLL:
    """The C++ files of the folder `sources` as a library, compiled if need be.

    `arch`: the instruction set as `-march` takes it; this machine's own when None.
    Raises BuildError.
    """
    compiler = _compiler()
    flags = _flags(arch)
    path = _cache() / f"{name}_{_key(compiler, flags, sources)}.so"
    if not path.exists():
        path = _compile(compiler, flags, sources, path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"the compiled kernels cannot be loaded: {error}") from error


def _compiler() -> str:
    wanted = os.environ.get("CXX")
    found = [shutil.which(name) for name in ([wanted] if wanted else ["c++", "g++", "clang++"])]
    compiler = next(filter(None, found), None)
    if compiler is None:
        raise BuildError(f"no C++ compiler found{f' as CXX={wanted}' if wanted else ''}")
    return compiler


def _flags(arch: str | None) -> list[str]:
    arm = platform.machine() in ("arm64", "aarch64") and not arch
    target = "-mcpu=native" if arm else f"-march={arch or 'native'}"
    return [*"-std=c++17 -O3 -fPIC -shared -pthread -w".split(), target]


def _key(compiler: str, flags: list[str], sources: Path) -> str:
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    parts = [version.stdout, *flags, platform.platform(), _processor()]
    parts += [path.name + path.read_text() for path in sorted(sources.iterdir()) if path.is_file()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """What `native` stands for: a shared home folder may serve machines of several kinds."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))


def _cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(os.environ.get("RESTORE_CACHE") or home / "restore")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return Path(_folder_of_this_process().name)
    return folder


@cache
def _folder_of_this_process() -> tempfile.TemporaryDirectory[str]:
    """In place of a cache that cannot be written; gone when the process ends."""
    return tempfile.TemporaryDirectory(prefix="restore-kernels-", ignore_cleanup_errors=True)


def _compile(compiler: str, flags: list[str], sources: Path, path: Path) -> Path:
    """Built aside and renamed, so that several ranks may build at once."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        built = Path(folder) / path.name
        files = map(str, sorted(sources.glob("*.cpp")))
        command = [compiler, *flags, *files, "-o", str(built)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode != 0:
            lines = run.stderr.strip().splitlines() or ["no message"]
            told = (line for line in lines if re.search(r"error|failed|No space", line))
            raise BuildError(f"{compiler} failed: {next(told, lines[-1])}")
        built.replace(path)
    return path
