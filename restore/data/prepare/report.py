"""Floor 3. What `restore prepare` tells: the plan and its result by parts, the doctor's table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from restore.data.prepare.engine import Rest
from restore.data.prepare.plan import Plan
from restore.data.prepare.records import Finding, Record
from restore.errors import printable
from restore.reports.tables import text_table

OTHER = "other"


def describe(plan: Plan, rest: Rest, out: str, free: int) -> str:
    """The plan as a table, one row a part, and what it needs."""
    record = plan.record
    copies = {copy.target for copy in plan.copies}
    todo = {copy.target for copy in rest.copies} | {making.target for making in rest.makings}
    rows: dict[tuple[str, str], list[int]] = {}
    steps = [("copy", path) for path in copies]
    steps += [(_how(making.kind, making.scale), making.target) for making in plan.makings]
    for how, target in steps:
        part = record.part_of(target.replace("{k", "0").replace("}", ""))
        row = rows.setdefault((part.name if part else OTHER, how), [0, 0])
        row[0] += 1
        row[1] += target in todo
    known = {part.name: part.count for part in record.parts}
    cells = [
        [name, how, str(count), str(left), str(known.get(name) or "")]
        for (name, how), (count, left) in sorted(
            rows.items(), key=lambda r: _place(record, r[0][0])
        )
    ]
    head = ["part", "how", "steps", "to do", "known"]
    lines = [
        f"{record.title} → {out}" + (f", {plan.wishes.variant}" if plan.wishes.variant else ""),
        f"licence: {record.licence}",
        *([f"note: {record.about}"] if record.about else []),
        "",
        text_table(head, cells),
        "",
        f"to write: about {_size(rest.bytes)}; free: {_size(free)}",
    ]
    if plan.ignored:
        lines.append(f"{plan.ignored} other files of the source are left alone")
    return printable_lines(lines)


def _how(kind: str, scale: int) -> str:
    return {"bicubic": f"bicubic 1/{scale}", "tiles": "cut", "blocks": "cut"}[kind]


def _place(record: Record, name: str) -> int:
    return next((i for i, part in enumerate(record.parts) if part.name == name), len(record.parts))


def result(record: Record, files: Iterable[str], out: str, new: int) -> str:
    """What lies there now, a line a part with fewer files than the whole set has."""
    counts: Counter[str] = Counter()
    for path in files:
        part = record.part_of(path)
        counts[part.name if part else OTHER] += 1
    done = f"{counts.total()} files" + ("" if new else ", nothing left to do")
    lines = [f"{out}: {record.title}, {done}"]
    for part in record.parts:
        if part.count is not None and 0 < counts[part.name] != part.count:
            lines.append(f"  {part.name}: {counts[part.name]}, the whole set has {part.count}")
    return printable_lines(lines)


def doctor_table(findings: Sequence[Finding]) -> tuple[str, int]:
    """One table, one verdict; and the number of faults."""
    marks: Mapping[bool | None, str] = {True: "FAULT", False: "ok", None: "–"}
    rows = [[f.check, marks[f.fault], f.part, f.found, f.expected] for f in findings]
    rows = [[printable(cell) for cell in row] for row in rows]
    head = ["check", "verdict", "of", "found", "expected"]
    faults = sum(finding.fault is True for finding in findings)
    verdict = "sound" if not faults else f"{faults} fault" + ("s" if faults > 1 else "")
    return f"{_left(head, rows)}\n\nverdict: {verdict}", faults


def _left(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of words, aligned to the left."""
    widths = [max(len(line[i]) for line in (head, *rows)) for i in range(len(head))]
    lines = [head, ["─" * width for width in widths], *rows]
    pairs = [zip(line, widths, strict=True) for line in lines]
    return "\n".join("  ".join(c.ljust(w) for c, w in pair).rstrip() for pair in pairs)


def printable_lines(lines: Iterable[str]) -> str:
    """Lines without a control character that a file name may hold."""
    return "\n".join(printable(part) for line in lines for part in line.split("\n"))


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
