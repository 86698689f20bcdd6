"""Floor 2. The rows of results: a number never travels alone."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from restore.errors import DataError


@dataclass(frozen=True)
class ImageRow:
    """One image under one scoring rule. PSNR in dB (`inf` for identical images), SSIM in [-1, 1].

    `protocol` is the rule's name and version. `input_*` is the same score of the input brought to
    the target's size without a network: MATLAB bicubic for super-resolution, the input itself
    otherwise.
    """

    set: str
    image: str
    protocol: str
    border: int
    psnr: float
    ssim: float
    input_psnr: float
    input_ssim: float
    width: int
    height: int
    seconds: float
    network: str
    weights_sha256: str
    commit: str
    precision: str = "fp32"
    """Of products and convolutions."""
    ensemble: int = 1
    """Forms of the self-ensemble."""
    tiling: str = "whole"
    """How tiles met (`blend`, `mair`, `grl`), or `whole`."""
    tiles: int = 1
    tile: int = 0
    """Side of the first tile in LQ pixels; 0 for an image restored whole."""
    overlap: int = 0
    """LQ pixels that neighbouring tiles share."""
    tile_difference: float = math.nan
    """Largest difference from the image restored whole, on [0, 1]; NaN unless asked for."""
    compiled: bool = False
    device: str = ""
    """cpu or cuda; empty where a result is older than this column."""
    backend: str = ""
    """Of the selective scan, for networks that have one."""
    further: Mapping[str, float] = field(default_factory=dict)
    """The user's own figures by name."""

    @property
    def gain(self) -> float:
        """PSNR over the input's, in dB; 0 where both are infinite."""
        return _gain(self.psnr, self.input_psnr)


@dataclass(frozen=True)
class SetScore:
    """The mean over one set: mean of the images' dB, not dB of the mean error."""

    set: str
    protocol: str
    images: int
    psnr: float
    ssim: float
    input_psnr: float
    input_ssim: float
    border: int = 0
    further: Mapping[str, float] = field(default_factory=dict)

    @property
    def gain(self) -> float:
        """Mean PSNR over the input's, in dB; 0 where both are infinite."""
        return _gain(self.psnr, self.input_psnr)


def _gain(psnr: float, input_psnr: float) -> float:
    both_infinite = math.isinf(psnr) and math.isinf(input_psnr)
    return 0.0 if both_infinite else psnr - input_psnr


def mean(values: Iterable[float]) -> float:
    """Arithmetic mean in the order given (so that any number of ranks gives the same bits)."""
    total, count = 0.0, 0
    for value in values:
        total, count = total + value, count + 1
    return total / count if count else math.nan


def summarise(rows: Sequence[ImageRow]) -> list[SetScore]:
    """One SetScore per set and protocol, in the order in which they first appear."""
    scores = []
    for name, protocol in dict.fromkeys((row.set, row.protocol) for row in rows):
        of_set = [row for row in rows if (row.set, row.protocol) == (name, protocol)]
        scores.append(
            SetScore(
                set=name,
                protocol=protocol,
                images=len(of_set),
                psnr=mean(r.psnr for r in of_set),
                ssim=mean(r.ssim for r in of_set),
                input_psnr=mean(r.input_psnr for r in of_set),
                input_ssim=mean(r.input_ssim for r in of_set),
                border=of_set[0].border,
                further={key: mean(r.further[key] for r in of_set) for key in of_set[0].further},
            )
        )
    return scores


def manner(rows: Sequence[ImageRow]) -> str:
    """How the images were restored, in words: `fp32, whole, on cpu`."""
    cut = {(row.set, row.image): row for row in rows if row.tiles > 1}
    count = len({(row.set, row.image) for row in rows})
    words = list(dict.fromkeys(row.precision for row in rows))
    words += dict.fromkeys(f"self-ensemble of {r.ensemble}" for r in rows if r.ensemble > 1)
    if len(cut) < count:
        words.append(f"{count - len(cut)} of {count} images whole" if cut else "whole")
    for tiling in dict.fromkeys(row.tiling for row in cut.values()):
        tiled = [row for row in cut.values() if row.tiling == tiling]
        sides, overlaps = (_range(getattr(r, key) for r in tiled) for key in ("tile", "overlap"))
        words.append(f"tiles ({tiling}) of {sides}, overlapping by {overlaps}")
    words += ["compiled"] if any(row.compiled for row in rows) else []
    words += dict.fromkeys(f"on {row.device}" for row in rows if row.device)
    words += dict.fromkeys(f"scan backend {row.backend}" for row in rows if row.backend)
    return ", ".join(words)


def _range(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"


def write_results(folder: Path, rows: Sequence[ImageRow], about: dict[str, object]) -> None:
    """Write `rows.jsonl`, `rows.csv` and `summary.json` into `folder`, each replaced whole.

    An infinite PSNR is written as `Infinity`, as Python's json module does. Bytes of a file's name
    that are no UTF-8 are escaped.
    """
    lines = "".join(json.dumps(asdict(row)) + "\n" for row in rows)
    replace_text(folder / "rows.jsonl", lines)
    replace_text(folder / "rows.csv", _as_csv(rows))
    scores = summarise(rows)
    several = len({s.protocol for s in scores}) > 1
    sets = {
        f"{s.set}, {s.protocol}" if several else s.set: {
            k: v for k, v in asdict(s).items() if k != "set"
        }
        for s in scores
    }
    summary = {"sets": sets, "restored": manner(rows), **about}
    replace_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")


def _as_csv(rows: Sequence[ImageRow]) -> str:
    """A column per field of a row, its gain and each of the user's figures."""
    names = [f.name for f in fields(ImageRow) if f.name != "further"]
    own = list(rows[0].further) if rows else []
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, [*names, "gain", *own], extrasaction="ignore")
    table.writeheader()
    table.writerows({**asdict(row), "gain": row.gain, **row.further} for row in rows)
    return text.getvalue()


def read_rows(file: Path) -> list[ImageRow]:
    """The rows of a `rows.jsonl`; keys that this version does not know are left out.

    Raises DataError DAT28 for a file that holds something else.
    """
    rows = []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            rows.append(_row(json.loads(line)))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise DataError.of(
                "DAT28",
                "not a row of results",
                f"{file}:{number}",
                str(error).splitlines()[0][:100],
                "one JSON object an image, as test.py writes",
                "name a rows.jsonl or a folder with one",
            ) from None
    return rows


_KINDS: Mapping[Any, Any] = {"str": str, "int": int, "float": (int, float), "bool": bool}


def _row(values: Mapping[str, Any]) -> ImageRow:
    """The row of these values. Raises TypeError for what is none."""
    row = ImageRow(**{f.name: values[f.name] for f in fields(ImageRow) if f.name in values})
    held = [(f.name, getattr(row, f.name), _KINDS.get(f.type, Mapping)) for f in fields(row)]
    held += [("further", value, _KINDS["float"]) for value in dict(row.further).values()]
    for key, value, kind in held:
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise TypeError(f"{key} {value!r}")
    return row


def replace_text(path: Path, text: str) -> None:
    """Write `text` beside `path` and rename it over `path`: a reader never sees half a file."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    temporary.replace(path)


def read_object(file: Path) -> dict[str, Any]:
    """The JSON object that `file` holds; an empty one where it holds anything else.

    Raises OSError where there is no such file.
    """
    try:
        held = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return {}
    return held if isinstance(held, dict) else {}
