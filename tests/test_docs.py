"""The commands and Python of README.md and docs/*.md: they parse, and those that can run do.

A line of a code block whose comment says `needs …` (hardware, data, weights, minutes) is parsed
only; a comment line `# needs …` says so of all lines below it in its block. All others run, in one
folder, in the order in which they stand, after a short `make demo`; so do those that need a file of
STAND_INS.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from glob import glob
from pathlib import Path

import pytest
import torch

from restore.archs import build_network
from restore.archs.table import ARCHS
from restore.archs.weights import official_state
from restore.commands.check import tree_of_file
from restore.commands.main import COMMANDS, Parser, main
from restore.commands.shared import named_network, overrides, read_tree
from restore.data.prepare.table import SETS
from restore.options import read_document
from restore.recipes.bench_trees import BenchTree, check_bench
from restore.reports.published.table import published_as

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHORT = ["name=train_SPAN_demo", "train.total_iter=4", "datasets.train.gt_size=32", "num_gpu=0"]


STAND_INS = ("theirs.yml", "spanx4_ch48.pth")


@dataclass(frozen=True)
class Line:
    """A command line or a Python block, where it stands and whether it can run here."""

    page: str
    number: int
    text: str
    needs: bool

    def __str__(self) -> str:
        return f"{self.page}:{self.number}"


def wants(text: str) -> bool:
    """Whether a comment names a need that is not met here."""
    return any(need not in STAND_INS for need in re.findall(r"\bneeds ([\w.]+)", text))


def blocks(language: str) -> Iterator[tuple[Path, int, str]]:
    """(page, number of its first line, text) of the code blocks of one language."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for found in BLOCK.finditer(text):
            if found.group(1) == language:
                yield page, text.count("\n", 0, found.start()) + 2, found.group(2)


def commands() -> list[Line]:
    """Every command line of the plain code blocks."""
    found = []
    for page, start, block in blocks(""):
        below = False
        for number, line in enumerate(block.splitlines(), start):
            command, _, comment = line.partition("#")
            needs = wants(comment)
            below |= needs and not command.strip()
            if re.match(r"(restore|python|torchrun|make|pip)\s", command):
                found.append(Line(page.name, number, command.strip(), needs or below))
    return found


LINES = commands()
PYTHON = [Line(page.name, start, block, wants(block)) for page, start, block in blocks("python")]
each_line = pytest.mark.parametrize("line", LINES, ids=str)


def argv_of(text: str) -> list[str] | None:
    """What a line gives to `main`; None for make and pip."""
    words = shlex.split(text.partition(">")[0])
    if words[0] == "restore":
        return words[1:]
    if words[0] in ("python", "torchrun"):
        script = next(k for k, word in enumerate(words) if word in ("train.py", "test.py"))
        return [words[script].removesuffix(".py"), *words[script + 1 :]]
    return None


@cache
def parser_of(command: str) -> argparse.ArgumentParser:
    parser = Parser(prog=command, allow_abbrev=False)
    importlib.import_module(f"restore.commands.{command}").add_arguments(parser)
    return parser


def test_every_command_stands_in_the_readme() -> None:
    shown = {argv[0] for line in LINES if line.page == "README.md" and (argv := argv_of(line.text))}
    assert shown == set(COMMANDS)
    assert sum(not line.needs for line in LINES) > 15


@each_line
def test_command_line_is_accepted(line: Line) -> None:
    argv = argv_of(line.text)
    if argv is None:
        program, what, *packages = shlex.split(line.text)
        if program == "make":
            assert f"\n{what}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
        else:  # packages of an extra; another project is called restore on the package index
            extras = (ROOT / "setup.py").read_text(encoding="utf-8").partition("extras_require")[2]
            assert packages and [name for name in packages if f'"{name}>=' not in extras] == []
        return
    args = parser_of(argv[0]).parse_intermixed_args(argv[1:])
    for word in argv:
        assert not word.startswith("options/") or glob(word, root_dir=ROOT), f"no file {word}"
    if getattr(args, "arch", None) is not None:
        named_network(args)
    if argv[0] == "reproduce" and not args.list:
        assert published_as(args.name)
    file = str(getattr(args, "opt", None))
    if file.startswith("options/"):
        assignments = overrides(args) if hasattr(args, "force_yml") else []
        if argv[0] == "bench":
            read_tree(BenchTree, str(ROOT / file), assignments, check_bench)
        else:
            kind, check = tree_of_file(read_document(ROOT / file))
            tree = read_tree(kind, str(ROOT / file), assignments, check)
            assert (
                argv[0] not in ("train", "test") or argv[0] == kind.__name__[: -len("Tree")].lower()
            )
            assert tree.name


def named_in_text() -> list[tuple[str, str, list[str]]]:
    """(page, command, its flags) of every `restore … --flag …` inside the text."""
    found = []
    for page in PAGES:
        text = BLOCK.sub("", page.read_text(encoding="utf-8"))
        for span in re.findall(r"`restore\s+(\w[^`]*)`", text):
            command, *words = span.split()
            found.append((page.name, command, [w for w in words if w.startswith("--")]))
    return found


@pytest.mark.parametrize("page, command, flags", named_in_text())
def test_flags_in_the_text_exist(page: str, command: str, flags: list[str]) -> None:
    assert command in COMMANDS
    known = parser_of(command).format_help()
    assert [flag for flag in flags if not re.search(rf"{flag}\b", known)] == []


def test_speed_in_the_readme_is_recorded() -> None:
    """Each ratio of its table, as it stands or rounded, is one of benchmarks/RESULTS.md."""
    table = PAGES[0].read_text(encoding="utf-8").partition("## Speed")[2].partition("\n## ")[0]
    results = (ROOT / "benchmarks/RESULTS.md").read_text(encoding="utf-8")
    measured = [float(found) for found in re.findall(r"([\d.]+) ×", results)]
    claimed = re.findall(r"([\d.]+) ×(?! \d)", table)
    assert len(claimed) > 10
    for figure in claimed:
        digits = len(figure.partition(".")[2])
        assert any(f"{ratio:.{digits}f}" == figure for ratio in measured), figure


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert "://" in target or (page.parent / target).exists(), target


# Running


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's folder after `make demo`, with a short training; what is official is a stand-in."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "options").symlink_to(ROOT / "options")
    network = build_network({"type": "SPAN", "feature_channels": 48, "upscale": 4})
    shutil.copy(ROOT / "tests" / "official" / "basicsr_SPAN_Lx2.yml", folder / "theirs.yml")
    torch.save({"params": official_state(network)}, folder / "spanx4_ch48.pth")
    with contextlib.chdir(folder):
        assert main(["prepare", "demo"]) == 0
        for kind, more in (("train", SHORT), ("test", ["num_gpu=0"])):
            argv = [kind, "-opt", f"options/{kind}_SPAN_demo.yml", "--set", *more]
            assert main(argv) == 0
        yield folder


@pytest.mark.parametrize("line", [line for line in LINES if not line.needs], ids=str)
def test_command_line_runs(line: Line, place: Path) -> None:
    argv, output = argv_of(line.text), line.text.partition(">")[2].strip()
    if argv is None:
        pytest.skip("installs")
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(argv) == 0
    if output:
        (place / output).write_text(said.getvalue(), encoding="utf-8")


def test_what_the_readme_makes_is_there(place: Path) -> None:
    made = {path.name for path in place.iterdir()}
    assert made >= {"restored", "small", "net_g.pth", "span.ts"}
    assert {path.name for path in (place / "experiments").iterdir()} >= {"short", "test_x8"}


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_python_runs(block: Line, place: Path) -> None:
    code = compile(block.text, str(block), "exec")
    if not block.needs:
        exec(code, {})


# The table of option files


def test_recipes_are_up_to_date() -> None:
    words = [sys.executable, ROOT / "scripts" / "write_recipes.py", "--check"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_every_option_file_is_in_the_recipes() -> None:
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    missing = [f.name for f in (ROOT / "options").glob("*.yml") if f"`{f.name}`" not in text]
    assert missing == []


# Licences


def test_terms_of_every_network_data_set_and_package_are_told() -> None:
    text = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    papers = {arch.paper.rpartition(" ")[2] for arch in ARCHS.values() if "arXiv" in arch.paper}
    assert len(papers) > 3 and [paper for paper in papers if f"arXiv {paper}" not in text] == []
    rows = [row.strip("| ").split(" | ") for row in text.splitlines() if row.startswith("| ")]
    terms = {name: told for names, told in (row[:2] for row in rows) for name in names.split(", ")}
    assert {record.title: record.licence for record in SETS.values()}.items() <= terms.items()
    needed = re.findall(r'^ +"([\w-]+)[>=]', (ROOT / "setup.py").read_text(), re.MULTILINE)
    needed += re.findall(r'\["([\w-]+)>', (ROOT / "setup.py").read_text())
    assert len(needed) > 20 and [name for name in needed if name not in text] == []
