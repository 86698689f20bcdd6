"""Floor 2. Which code produced a result: versions and commit."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

import restore


def versions() -> dict[str, str]:
    """Versions of restore, Python and the packages that move numbers."""
    packages = ("torch", "numpy", "scipy", "opencv-python-headless", "safetensors")
    found = {"restore": restore.__version__, "python": platform.python_version()}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "unknown"
    return found


def commit() -> str:
    """The commit of the source tree that restore runs from, `+` when it was changed; '' if none."""
    root = Path(restore.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return ""
    head = _git(root, "rev-parse", "HEAD")
    return head + ("+" if head and _git(root, "status", "--porcelain", "-uno") else "")


def _git(root: Path, *words: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
