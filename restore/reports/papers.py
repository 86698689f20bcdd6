"""Floor 2. A comparison as papers and repositories print it: Markdown, CSV and LaTeX.

Best bold, second underlined; bold and underlined are of what is printed, so equal figures share.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

from restore.reports.comparison import Comparison, Rank, Score, Standing
from restore.reports.records import replace_text
from restore.reports.tables import number

_MARKDOWN = {"": "{}", "best": "**{}**", "second": "<u>{}</u>"}
_LATEX = {"": "{}", "best": r"\textbf{{{}}}", "second": r"\underline{{{}}}"}


def write_tables(folder: Path, comparisons: Sequence[Comparison]) -> None:
    """`tables.md`, `tables.csv` and `tables.tex` in `folder`, each replaced whole."""
    replace_text(folder / "tables.md", "\n".join(map(markdown, comparisons)))
    replace_text(folder / "tables.csv", as_csv(comparisons))
    replace_text(folder / "tables.tex", "\n".join(map(latex, comparisons)))


def count(parameters: int | None) -> str:
    """Parameters as tables print them: 498 K, 19.59 M."""
    if parameters is None:
        return "–"
    if parameters < 10_000:
        return f"{parameters / 1e3:.1f} K"
    return f"{parameters / 1e3:.0f} K" if parameters < 1e6 else f"{parameters / 1e6:.2f} M"


def duration(seconds: float) -> str:
    """Seconds as tables print them: three digits, in ms below one second."""
    if math.isnan(seconds):
        return "–"
    return f"{1000 * seconds:.3g} ms" if seconds < 0.9995 else f"{seconds:.3g} s"


def markdown(comparison: Comparison) -> str:
    """A GitHub table with the protocol above it."""
    head = ["Network", "Params", "Time", *comparison.sets]
    lines = [
        f"{_title(comparison)}; PSNR in dB / SSIM.",
        "",
        "| " + " | ".join(map(_plain, head)) + " |",
        "|" + "|".join(["---", *["---:"] * (len(head) - 1)]) + "|",
    ]
    for standing in comparison.standings:
        cells = [_plain(_name(standing)), count(standing.parameters), duration(standing.seconds)]
        cells += [_both(standing.scores.get(s), _MARKDOWN, "/", "–") for s in comparison.sets]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def latex(comparison: Comparison) -> str:
    r"""A `tabular` for booktabs; two columns a set."""
    sets = comparison.sets
    over = " & ".join(rf"\multicolumn{{2}}{{c}}{{{_escaped(s)}}}" for s in sets)
    rules = "".join(rf"\cmidrule(lr){{{4 + 2 * k}-{5 + 2 * k}}}" for k in range(len(sets)))
    lines = [
        f"% {_title(comparison)}. Needs \\usepackage{{booktabs}}.",
        rf"\begin{{tabular}}{{lrr{'rr' * len(sets)}}}",
        r"\toprule",
        rf" & & & {over} \\",
        rules,
        "Network & Params & Time" + " & PSNR & SSIM" * len(sets) + r" \\",
        r"\midrule",
    ]
    kind = None
    for standing in comparison.standings:
        if kind is not None and standing.kind != kind:
            lines.append(r"\midrule")
        kind = standing.kind
        cells = [_escaped(_name(standing)), count(standing.parameters), duration(standing.seconds)]
        cells += [_both(standing.scores.get(s), _LATEX, " & ", "-- & --") for s in sets]
        lines.append(" & ".join(cells).replace("–", "--") + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def as_csv(comparisons: Sequence[Comparison]) -> str:
    """One line per network, set and protocol, figures unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["protocol", "network", "kind", "parameters", "seconds", "set", "images", "psnr", "ssim"]
    )
    for comparison in comparisons:
        for standing in comparison.standings:
            for name, score in standing.scores.items():
                about = [comparison.protocol, standing.name, standing.kind]
                about += [_known(standing.parameters), _known(standing.seconds), name]
                writer.writerow([*about, score.images, _known(score.psnr), _known(score.ssim)])
    return text.getvalue()


def _title(comparison: Comparison) -> str:
    return f"Protocol {comparison.protocol}, border {' or '.join(map(str, comparison.borders))}"


def _name(standing: Standing) -> str:
    return f"{standing.name} (published)" if standing.kind == "published" else standing.name


def _both(score: Score | None, form: dict[Rank | str, str], between: str, nothing: str) -> str:
    if score is None:
        return nothing
    psnr = form[score.psnr_rank].format(number(score.psnr, 2))
    return psnr + between + form[score.ssim_rank].format(number(score.ssim, 4))


def _known(value: float | None) -> str:
    return "" if value is None or math.isnan(value) else repr(value)


def _plain(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


_SPECIAL = {
    "\\": r"\textbackslash{}", "×": r"$\times$", "∞": r"$\infty$", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", **{c: "\\" + c for c in "&%$#_{}"},
}  # fmt: skip


def _escaped(text: str) -> str:
    return "".join(_SPECIAL.get(c, c) for c in text)
