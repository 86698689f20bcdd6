"""Floor 3. Room on the disk, looked for before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from restore.errors import DataError

SPARE = 16 << 20  # free bytes that are left to others


def free_bytes(folder: Path) -> int:
    """Free space where `folder` is or will be."""
    place = folder.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def require_room(need: int, folder: Path) -> None:
    """Raises DataError DAT23 unless `need` bytes fit where `folder` is or will be."""
    free = free_bytes(folder)
    if need + SPARE > free:
        raise DataError.of(
            "DAT23",
            "not enough free space",
            str(folder),
            f"{free / 1e9:.2f} GB free",
            f"about {need / 1e9:.2f} GB",
            "free some, or choose an --out on another disk",
        )
