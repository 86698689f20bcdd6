"""Floor 6. What a report shows besides its numbers: kept images, training curves, other files."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from restore.recipes.pictures import PAIR, zoom_of
from restore.reports.curves import Series, read_curves
from restore.reports.page.page import ImageViews
from restore.reports.records import ImageRow

TABLES = (("Markdown", "tables.md"), ("CSV", "tables.csv"), ("LaTeX", "tables.tex"))
"""What `write_tables` puts beside a page, with its label there."""


def view_of(
    folder: Path, index: int, row: ImageRow, stem: str, restored: dict[str, str]
) -> ImageViews | None:
    """The views of image `index` whose pair `save_pair` kept in `folder`, None if it did not.

    `stem`: beginning of the pair's files relative to the page; `restored`: contender -> file.
    """
    zoom = zoom_of(folder, index)
    if zoom is None:
        return None
    there = {name: (folder / f"{index:05d}_{name}").exists() for name in PAIR}
    return ImageViews(
        set=row.set,
        image=row.image,
        lq=f"{stem}_{'lq' if there['lq.png'] else 'baseline'}.png",
        baseline=f"{stem}_baseline.png",
        restored=restored,
        target=f"{stem}_gt.png" if there["gt.png"] else None,
        thumb=f"{stem}_thumb.jpg" if there["thumb.jpg"] else None,
        width=row.width,
        height=row.height,
        zoom=zoom,
    )


def training_curves(weights: dict[str, str]) -> list[Series]:
    """The curves of the runs that weights are of (network -> weights), each run once; none for a
    file or a folder without a log."""
    logs: dict[Path, str] = {}
    for name, path in weights.items():
        folder = Path(path)
        near = (folder, *folder.parents[:2]) if folder.is_dir() else ()
        log = next((f / "log.jsonl" for f in near if (f / "log.jsonl").is_file()), None)
        if log is not None:
            logs.setdefault(log.resolve(), name)
    return [series for log, name in logs.items() for series in read_curves(name, log)]


def share(source: Path, target: Path) -> None:
    """`source` also as `target`, without taking its room twice where the file system allows."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def folder_name(name: str) -> str:
    """`name` as the name of a folder."""
    return re.sub(r"[^\w.+-]+", "_", name).lstrip(".") or "set"
