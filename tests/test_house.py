"""The floors of the house: imports go down only, no cycles, and reading options needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# A module's floor and wing: the longest entry that its dotted name begins with. A module imports
# from lower floors, and on its own floor only from its own wing.
FLOORS: dict[str, tuple[int, str]] = {
    "restore": (0, "version"),
    "restore.errors": (1, "errors"),
    "restore.catalog": (2, "catalog"),
    "restore.section": (2, "catalog"),
    "restore.parsing": (2, "catalog"),
    "restore.images": (2, "images"),
    "restore.image_files": (2, "images"),
    "restore.image_flaws": (2, "images"),
    "restore.image_headers": (2, "images"),
    "restore.image_rows": (2, "images"),
    "restore.image_floats": (2, "images"),
    "restore.image_kernels": (2, "images"),
    "restore.image_writing": (2, "images"),
    "restore.png": (2, "images"),
    "restore.world": (2, "world"),
    "restore.ops": (2, "ops"),
    "restore.reports": (2, "reports"),
    "restore.archs": (3, "archs"),
    "restore.data": (3, "data"),
    "restore.losses": (3, "losses"),
    "restore.metrics": (3, "metrics"),
    "restore.options": (3, "options"),
    "restore.options_legacy": (3, "options"),
    "restore.options_yaml": (3, "options"),
    "restore.evaluation": (4, "evaluation"),
    "restore.training": (5, "training"),
    "restore.bridges": (6, "bridges"),
    "restore.recipes": (6, "recipes"),
    "restore.commands": (7, "commands"),
}
# Pure Python, no imports of their own: every wing may use them.
SHARED_ON_FLOOR_2 = {"restore.catalog", "restore.ops.native"}
MAX_LINES = 400


def modules() -> dict[str, Path]:
    found = {}
    for file in sorted((ROOT / "restore").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def place(module: str) -> tuple[int, str]:
    name = module
    while name not in FLOORS:
        name = name.rpartition(".")[0]
    return FLOORS[name]


def imported(file: Path) -> set[str]:
    """Every module of ours that a file names, also inside functions."""
    ours = modules()
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            base = node.module or ""
            found |= {
                f"{base}.{a.name}" if f"{base}.{a.name}" in ours else base for a in node.names
            }
    return {name for name in found if name in ours}


@pytest.mark.parametrize("module", list(modules()))
def test_imports_go_down(module: str) -> None:
    floor, wing = place(module)
    for other in imported(modules()[module]) - {module}:
        other_floor, other_wing = place(other)
        allowed = other_floor < floor or other_wing == wing or other in SHARED_ON_FLOOR_2
        assert allowed, f"{module} (floor {floor}) imports {other} (floor {other_floor})"


def test_no_cycles() -> None:
    edges = {name: imported(file) - {name} for name, file in modules().items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail, name])
        if name not in done:
            for other in edges[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize("module", list(modules()))
def test_plain_style(module: str) -> None:
    text = modules()[module].read_text()
    assert len(text.splitlines()) <= MAX_LINES, f"{module} has become a drawer"
    for node in ast.walk(ast.parse(text)):
        assert not (isinstance(node, ast.ImportFrom) and node.names[0].name == "*")
        assert not (isinstance(node, ast.ExceptHandler) and node.type is None), "bare except"
        exits = isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.exit", "os._exit")
        ends = module.endswith("__main__") or module == "restore.training.stop"  # unanswered signal
        assert not exits or ends, "only entry points exit"
    if module != "restore.world":
        assert "distributed" not in {
            name
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom) and node.module == "torch"
            for name in (a.name for a in node.names)
        }


def test_option_trees_need_no_torch() -> None:
    code = (
        "import sys, restore.recipes.trees, restore.commands.main, restore.commands.train;"
        "heavy = {'torch', 'cv2', 'scipy', 'matplotlib'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_import_costs_nothing() -> None:
    code = "import sys; before = set(sys.modules); import restore; print(set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "{'restore'}"


def test_warnings_are_errors_on_import() -> None:
    code = (
        "import restore, restore.archs.span, restore.recipes.build_trainer, restore.commands.main"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True)
