"""Floor 2. Scores as a plain-text table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

from restore.reports.comparison import Spread
from restore.reports.records import SetScore


def number(value: float, digits: int) -> str:
    """A score as text: `inf` and `–` where there is no number."""
    if math.isnan(value):
        return "–"
    return "inf" if math.isinf(value) else f"{value:.{digits}f}"


def score_table(scores: Sequence[SetScore], baseline: str) -> str:
    """set × PSNR/SSIM with the protocol's name, the baseline's scores, the gain, own metrics."""
    head = ["set", "images", "protocol", "PSNR [dB]", "SSIM", baseline + " PSNR", "SSIM", "gain"]
    own = list(dict.fromkeys(name for s in scores for name in s.further))
    rows = [
        [
            s.set,
            str(s.images),
            s.protocol,
            number(s.psnr, 2),
            number(s.ssim, 4),
            number(s.input_psnr, 2),
            number(s.input_ssim, 4),
            "–" if math.isnan(s.gain) else f"{s.gain:+.2f}",
            *(number(s.further.get(name, math.nan), 4) for name in own),
        ]
        for s in scores
    ]
    return text_table([*head, *own], rows)


def spread_table(spreads: Sequence[Spread]) -> str:
    """How far the protocol moves the scores of the same images; empty for one protocol."""
    head = ["the same images", "protocols", "PSNR [dB], lowest", "highest", "apart"]
    head += ["SSIM, lowest", "highest", "apart"]
    lines = [
        [f"{s.name}, {s.set}", str(s.protocols), *_ends(s.psnr, 2), *_ends(s.ssim, 4)]
        for s in spreads
    ]
    return text_table(head, lines) if lines else ""


def _ends(ends: tuple[float, str, float, str], digits: int) -> list[str]:
    low, lowest, high, highest = ends
    ranged = [f"{number(low, digits)} {lowest}", f"{number(high, digits)} {highest}"]
    return [*ranged, number(high - low, digits)]


def text_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned: the first to the left, the others to the right."""
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first = cells[0].ljust(widths[0])
        rest = (c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))
        return "  ".join([first, *rest]).rstrip()

    return "\n".join([line(head), "  ".join("─" * w for w in widths), *map(line, rows)])
