"""Every file in options/: it parses, builds, promises, and fits its schema."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from restore.archs import build_network, fuse
from restore.archs.table import architecture_of
from restore.commands.shared import read_tree
from restore.data.options import EVALUATION_SETS, TRAINING_SETS
from restore.errors import OptionError
from restore.losses.options import LOSSES
from restore.options import read_document, read_options
from restore.options_yaml import dump
from restore.recipes.bench_trees import BenchTree, check_bench
from restore.recipes.checks import check_test, check_train
from restore.recipes.trees import TestTree, TrainTree
from restore.reports.published.table import Published, published, published_as
from restore.section import without_effect
from restore.training.options import OPTIMISERS, SCHEDULES

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "options" / "schema"
FILES = sorted((ROOT / "options").glob("*.yml"))
IDS = [file.stem for file in FILES]
every_file = pytest.mark.parametrize("file", FILES, ids=IDS)


def kind_of(file: Path) -> str:
    return file.stem.partition("_")[0]


@cache
def tree_of(file: Path) -> Any:
    if kind_of(file) == "bench":
        return read_tree(BenchTree, str(file), [], check_bench)
    if kind_of(file) == "train":
        return read_tree(TrainTree, str(file), [], check_train)
    return read_tree(TestTree, str(file), [], check_test)


def test_there_are_files_of_every_kind() -> None:
    assert {kind_of(file) for file in FILES} == {"train", "test", "bench"}


@every_file
def test_file_parses_and_is_called_as_its_run(file: Path) -> None:
    tree = tree_of(file)
    assert tree.name == file.stem
    if kind_of(file) == "bench":
        return
    assert re.fullmatch(rf"(train|test)_{re.escape(tree.network_g.type)}[\w+-]*_\w+", file.stem)


@cache
def built(file: Path) -> nn.Module:
    """The file's network, without memory; built once for all files that have the same."""
    options = tree_of(file).network_g
    others = (f for f in FILES if kind_of(f) != "bench")
    first = next(f for f in others if tree_of(f).network_g == options)
    return build_network(options, meta=True) if first == file else built(first)


@every_file
def test_file_builds(file: Path) -> None:
    if kind_of(file) == "bench":
        networks = [about.options() for about in tree_of(file).networks.by_name().values()]
        parameters = [p for o in networks for p in build_network(o, meta=True).parameters()]
    else:
        parameters = list(built(file).parameters())
    assert parameters and all(p.is_meta for p in parameters)


@every_file
def test_header_keeps_the_form(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    header = [line for line in lines if line.startswith("#")]
    assert lines[0] == f"# yaml-language-server: $schema=schema/{kind_of(file)}.json"
    assert lines[: len(header)] == header, "comments that do not stand at the top"
    promises = {line[2:].partition(":")[0]: line.partition(":")[2].strip() for line in header}
    assert all(promises[key] for key in ("Paper", "Promise", "Hardware", "Command"))
    program = "restore bench" if kind_of(file) == "bench" else f"python {kind_of(file)}.py"
    script = f"{program} -opt options/{file.name}"
    assert script in promises["Command"]


@every_file
def test_file_says_nothing_without_effect(file: Path) -> None:
    assert without_effect(tree_of(file)) == []


@pytest.mark.parametrize(
    "file", [f for f in FILES if kind_of(f) == "train"], ids=lambda f: f.stem.removeprefix("train_")
)
def test_schedule_and_stages_fit_the_length(file: Path) -> None:
    """No milestone after the end; what is left of the last period, the header says."""
    tree = tree_of(file)
    total, train = tree.train.total_iter, tree.datasets.train
    milestones = getattr(tree.train.scheduler, "milestones", ())
    assert list(milestones) == sorted(set(milestones)) and all(m < total for m in milestones)
    periods = getattr(tree.train.scheduler, "periods", ())
    left = sum(periods) - total if periods else 0
    assert left == 0 or f"last {left:,} iterations" in file.read_text(encoding="utf-8")
    assert train.iters is None or sum(train.iters) == total
    assert tree.train.warmup_iter < total


@every_file
def test_scale_and_patches_suit_the_network(file: Path) -> None:
    tree = tree_of(file)
    if kind_of(file) == "bench":
        networks = [about.options() for about in tree.networks.by_name().values()]
    else:
        networks = [tree.network_g]
    for network in networks:
        assert architecture_of(network).scale(network) == tree.scale
    if kind_of(file) != "train":
        return
    train, size = tree.datasets.train, architecture_of(tree.network_g).size
    for patch in (train.gt_size, *(train.gt_sizes or ())):
        side, rest = divmod(patch, tree.scale)
        assert not rest and size.padded(side) == side


PAIRS = [
    (training, test)
    for training in FILES
    for test in FILES
    if kind_of(training) == "train" and training.stem[5:] == test.stem.removeprefix("test")
]


@pytest.mark.parametrize("training, test", PAIRS, ids=[test.stem for _, test in PAIRS])
def test_a_test_file_tests_what_its_training_file_makes(training: Path, test: Path) -> None:
    assert tree_of(test).network_g == tree_of(training).network_g
    assert tree_of(test).path.pretrain_network_g == f"experiments/{training.stem}"


# Published figures: what a header promises stands in restore/reports/published, and is reached

CLAIM = re.compile(r"# Promise:(.*?)(?=\n# [A-Z]\w+:)", re.DOTALL)
NOT_OURS = re.compile(
    r"users who .*|rounding costs .*|\([^)]*the\s+compressed\s+input.*|\([^)]*MATLAB's.*", re.DOTALL
)
"""What a promise says of others: of users, of rounding, of the input."""


def claimed(file: Path) -> list[str]:
    """Figures that a file's header says were published: PSNR as 12.34, SSIM as .123 or .1234."""
    found = CLAIM.search(file.read_text(encoding="utf-8"))
    assert found is not None
    text = NOT_OURS.sub("", found.group(1).replace("\n#", " "))
    return [number.lstrip("0") for number in re.findall(r"\b\d\d\.\d\d\b|\b0?\.\d{3,4}\b", text)]


def of_test(file: Path) -> Path | None:
    """The test file of what a training file makes, itself for a test file."""
    test = file.with_name(file.name.replace("train_", "test_", 1))
    return test if test.exists() else None


def rows_of(file: Path) -> list[Published]:
    """The published rows of a file's network and task."""
    if kind_of(file) == "bench":
        return [row for name in tree_of(file).published for row in published_as(name)]
    test = of_test(file)
    return [row for row in published() if test is not None and row.options == test.name]


@pytest.mark.parametrize("file", [f for f in FILES if claimed(f)], ids=lambda f: f.stem)
def test_figures_that_a_header_claims_are_published(file: Path) -> None:
    known = [figures for row in rows_of(file) for figures in row.figures.values()]
    numbers = {f"{f.psnr:.2f}" for f in known if f.psnr is not None}
    numbers |= {f"{f.ssim:.{d}f}"[1:] for f in known if f.ssim is not None for d in (3, 4)}
    assert set(claimed(file)) <= numbers


@pytest.mark.parametrize(
    "file", [f for f in FILES if not claimed(f) and "demo" not in f.stem], ids=lambda f: f.stem
)
def test_a_header_without_figures_says_that_there_are_none(file: Path) -> None:
    found = CLAIM.search(file.read_text(encoding="utf-8"))
    assert found is not None
    assert re.search(
        r"\bnone\b|no published figure|[Nn]o (x3 weights or )?(dB|score)", found.group(1)
    )
    known = {d for row in rows_of(file) for d in row.figures}
    assert not known or "UNVERIFIED" in found.group(1), (
        "published rows that the header is silent of"
    )


@pytest.mark.parametrize("row", [r for r in published() if r.options], ids=lambda r: r.name)
def test_published_rows_belong_to_a_test_file(row: Published) -> None:
    tree = tree_of(ROOT / "options" / str(row.options))
    sets = {getattr(s, "name", None) or k for k, s in tree.datasets.evaluated().items()}
    assert set(row.figures) & sets, "no set of the file has a published figure"
    assert [rule.name for rule, _ in tree.val.rules(tree.scale)] == [row.protocol]


# SPAN's deployed parameters: what the paper counts, and the closed form for any width


def unit(inputs: int, outputs: int) -> int:
    """A 3×3 convolution with bias."""
    return 9 * inputs * outputs + outputs


def span_deployed(width: int, scale: int) -> int:
    units = unit(3, width) + 19 * unit(width, width)
    return units + (4 * width * width + width) + unit(width, 3 * scale**2)


PUBLISHED = {
    (52, 2): 481_324, (52, 3): 488_359, (52, 4): 498_208,
    (48, 2): 410_700, (48, 3): 417_195, (48, 4): 426_288,
}  # fmt: skip


def deployed(**options: Any) -> int:
    network = fuse(build_network({"type": "SPAN"} | options, meta=True))
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("width, scale", [*PUBLISHED, (16, 2), (1, 1)])
def test_deployed_parameters_of_span(width: int, scale: int) -> None:
    expected = PUBLISHED.get((width, scale), span_deployed(width, scale))
    assert span_deployed(width, scale) == expected
    assert deployed(feature_channels=width, upscale=scale) == expected


@pytest.mark.parametrize("file", [f for f in FILES if "_SPAN_SRx" in f.name], ids=lambda f: f.stem)
def test_span_files_are_of_the_width_that_they_promise(file: Path) -> None:
    network = tree_of(file).network_g
    expected = PUBLISHED[network.feature_channels, network.upscale]
    promised = re.findall(r"([\d,]+) deployed parameters", file.read_text(encoding="utf-8"))
    assert [int(number.replace(",", "")) for number in promised] in ([], [expected])


# Schemas


@pytest.fixture(scope="module", params=["train", "test", "bench"])
def schema(request: pytest.FixtureRequest) -> dict[str, Any]:
    return json.loads((SCHEMAS / f"{request.param}.json").read_text(encoding="utf-8"))


def test_schemas_are_up_to_date() -> None:
    result = subprocess.run(
        [sys.executable, ROOT / "scripts" / "write_schema.py", "--check"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


def test_check_finds_a_schema_that_is_out_of_date(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    script = tmp_path / "scripts" / "write_schema.py"
    script.write_bytes((ROOT / "scripts" / "write_schema.py").read_bytes())

    def run(*arguments: str) -> int:
        command = [sys.executable, script, *arguments]
        return subprocess.run(command, capture_output=True, timeout=60).returncode

    assert run("--check") == 1 and not (tmp_path / "options").exists()
    assert run() == 0
    written = tmp_path / "options" / "schema" / "test.json"
    assert written.read_bytes() == (SCHEMAS / "test.json").read_bytes()
    assert run("--check") == 0
    written.write_text("{}\n")
    assert run("--check") == 1 and written.read_text() == "{}\n"


def allows(schema: dict[str, Any], value: Any, whole: dict[str, Any]) -> bool:
    """Whether `schema` (with every keyword that ours use, and no other) allows `value`."""
    types = {
        "object": dict, "array": list, "string": str, "boolean": bool, "integer": int,
        "number": (int, float), "null": type(None),
    }  # fmt: skip
    for keyword, wanted in schema.items():
        if keyword == "$ref":
            right = allows(whole["$defs"][wanted.removeprefix("#/$defs/")], value, whole)
        elif keyword == "oneOf":
            right = sum(allows(part, value, whole) for part in wanted) == 1
        elif keyword == "anyOf":
            right = any(allows(part, value, whole) for part in wanted)
        elif keyword == "type":
            right = isinstance(value, types[wanted])
            right = right and (wanted == "boolean" or not isinstance(value, bool))
        elif keyword == "const":
            right = value == wanted
        elif keyword == "enum":
            right = value in wanted
        elif keyword in BOUNDS and isinstance(value, int | float):
            right = BOUNDS[keyword](value, wanted)
        elif keyword in LENGTHS and isinstance(value, str if "Length" in keyword else list):
            right = LENGTHS[keyword](len(value), wanted)
        elif keyword == "pattern" and isinstance(value, str):
            right = bool(re.search(wanted, value))
        elif keyword == "items" and isinstance(value, list):
            right = all(allows(wanted, item, whole) for item in value)
        elif keyword == "prefixItems" and isinstance(value, list):
            pairs = zip(wanted, value, strict=False)
            right = all(allows(part, item, whole) for part, item in pairs)
        elif keyword == "required" and isinstance(value, dict):
            right = set(wanted) <= set(value)
        elif keyword == "properties" and isinstance(value, dict):
            right = all(allows(wanted[k], v, whole) for k, v in value.items() if k in wanted)
        elif keyword == "patternProperties" and isinstance(value, dict):
            right = all(
                allows(part, v, whole)
                for pattern, part in wanted.items()
                for k, v in value.items()
                if re.search(pattern, k)
            )
        elif keyword == "additionalProperties" and isinstance(value, dict):
            assert wanted is False
            patterns = schema.get("patternProperties", {})
            right = all(
                k in schema["properties"] or any(re.search(p, k) for p in patterns) for k in value
            )
        else:
            assert keyword in SILENT or keyword in (*BOUNDS, *LENGTHS, "pattern", "items")
            right = True
        if not right:
            return False
    return True


BOUNDS = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
}
LENGTHS = {
    "minLength": BOUNDS["minimum"],
    "maxLength": BOUNDS["maximum"],
    "minItems": BOUNDS["minimum"],
    "maxItems": BOUNDS["maximum"],
}
SILENT = {
    "$schema", "$defs", "title", "description", "default", "deprecated", "required", "properties",
    "patternProperties", "additionalProperties", "prefixItems",
}  # fmt: skip


def plain(file: Path) -> Any:
    """The file's values as JSON has them."""
    return json.loads(json.dumps(read_document(file).values))


@cache
def schema_of(file: Path) -> dict[str, Any]:
    return json.loads((SCHEMAS / f"{kind_of(file)}.json").read_text(encoding="utf-8"))


@every_file
def test_file_fits_its_schema(file: Path) -> None:
    assert allows(schema_of(file), plain(file), schema_of(file))


@every_file
def test_jsonschema_agrees(file: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.Draft202012Validator(schema_of(file)).validate(plain(file))


WRONG: list[tuple[str, Any]] = [
    ("nam", "x"),
    ("scale", 0),
    ("scale", True),
    ("num_gpu", "all"),
    ("network_g", {"type": "SPANN"}),
    ("network_g", {"upscale": 2}),
    ("network_g", {"type": "SPAN", "chanels": 3}),
    ("datasets", {}),
    ("datasets.train.gt_siz", 32),
    ("datasets.train.use_hflip", "no"),
    ("datasets.val_2", {"type": "Nothing"}),
    ("datasets.vall", {"type": "SingleImageDataset", "dataroot_lq": "x"}),
    ("train.optim_g.type", "Adan"),
    ("train.optim_g.lr", 0),
    ("train.optim_g.betas", [0.9]),
    ("train.optim_g.momentum", 0.9),
    ("train.scheduler.milestones", 5),
    ("train.pixel_opt", "L1Loss"),
    ("val.protocol", "sr_y"),
]


@pytest.mark.parametrize("path, value", WRONG, ids=[f"{path}={value}" for path, value in WRONG])
def test_schema_and_reader_refuse_the_same(path: str, value: Any, tmp_path: Path) -> None:
    file = ROOT / "options" / "train_SPAN_SRx2.yml"
    values = plain(file)
    *parents, key = path.split(".")
    at = values
    for parent in parents:
        at = at[parent]
    at[key] = value
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(dump(values))
    with pytest.raises(OptionError):
        read_options(TrainTree, wrong)
    assert not allows(schema_of(file), values, schema_of(file))


def test_schema_knows_every_entry_of_every_table() -> None:
    whole = json.loads((SCHEMAS / "train.json").read_text(encoding="utf-8"))

    def types(choice: dict[str, Any]) -> set[str]:
        choice = next((part for part in choice.get("anyOf", ()) if "oneOf" in part), choice)
        names = [
            part["$ref"].removeprefix("#/$defs/") for part in choice["oneOf"] if "$ref" in part
        ]
        return {whole["$defs"][name]["properties"]["type"]["const"] for name in names}

    train = whole["$defs"]["TrainOptions"]["properties"]
    sets = whole["$defs"]["TrainSets"]
    (evaluation,) = sets["patternProperties"].values()
    assert types(train["optim_g"]) == set(OPTIMISERS)
    assert types(train["scheduler"]) == set(SCHEDULES)
    assert types(train["pixel_opt"]) == set(LOSSES)
    assert types(sets["properties"]["train"]) == set(TRAINING_SETS)
    assert types(evaluation) == set(EVALUATION_SETS)


def test_schema_is_a_schema(schema: dict[str, Any]) -> None:
    pytest.importorskip("jsonschema").Draft202012Validator.check_schema(schema)


def test_schema_says_what_the_source_says(schema: dict[str, Any]) -> None:
    span = schema["$defs"]["SpanOptions"]
    width = span["properties"]["feature_channels"]["description"]
    assert width == "Width of all features: 48 is the paper's SPAN-S, 52 its SPAN."
    assert span["properties"]["bias"]["deprecated"] is True
    assert span["description"].startswith("SPAN (arXiv 2311.12770")
