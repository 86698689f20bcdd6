"""Option files that are right: spellings, overrides, defaults, and what is written back."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationInfo, field_validator

from restore.catalog import Catalog
from restore.commands.shared import read_tree
from restore.errors import OptionError
from restore.metrics.protocols import PROTOCOLS, default_border
from restore.options import read_document, read_options, scalar
from restore.options_yaml import dump
from restore.parsing import parse
from restore.recipes.checks import check_train
from restore.recipes.trees import TestingOptions, TrainTree, ValidationOptions
from restore.section import Count, OneOf, Section, UserPath, mistake, no_effect, without_effect

from helpers import TINY_TRAIN


@pytest.fixture
def train_file(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yml"
    file.write_text(TINY_TRAIN)
    return file


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file that hypothesis writes again and again."""
    return tmp_path_factory.mktemp("options") / "any.yml"


SPELLINGS: list[tuple[str, Any]] = [
    ("2e-4", 2e-4),
    ("1e-5", 1e-5),
    ("1E5", 1e5),
    ("+.5", 0.5),
    ("-1.", -1.0),
    ("!!float 5e3", 5000.0),
    ("!!float 5", 5.0),
    (".inf", math.inf),
    ("-.INF", -math.inf),
    ("5", 5),
    ("-5", -5),
    ("+5", 5),
    ("010", 10),  # YAML 1.2; 8 in YAML 1.1
    ("0x1F", 31),
    ("0o17", 15),
    ("!!int 7", 7),
    ("~", None),
    ("null", None),
    ("", None),
    ("true", True),
    ("False", False),
    ("no", "no"),
    ("on", "on"),
    ("y", "y"),
    ("1_000", "1_000"),
    ("1:30", "1:30"),
    ("2024-01-31", "2024-01-31"),
    ("e5", "e5"),
    ("!!str 5", "5"),
    ("'5'", "5"),
    ('"a\\tb"', "a\tb"),
    ("a b  # said aside", "a b"),
    ("[1, 2.5, x, [~]]", (1, 2.5, "x", (None,))),
    ("{a: 1, b: {c: []}}", {"a": 1, "b": {"c": ()}}),
    ("Größe", "Größe"),
]


@pytest.mark.parametrize("text, value", SPELLINGS, ids=[text for text, _ in SPELLINGS])
def test_spelling(text: str, value: Any, scratch: Path) -> None:
    scratch.write_text(f"# a comment\nkey: {text}\n", encoding="utf-8")
    read = read_document(scratch).values["key"]
    assert (type(read), read) == (type(value), value)


def test_not_a_number_is_read_as_one() -> None:
    assert math.isnan(scalar(".NaN", "--set"))


def test_block_lists_multi_line_text_and_byte_order_mark(scratch: Path) -> None:
    text = "\ufefflist:\n- 1\n- 2\ntext: |\n  a\n  b\n1: one\n"
    scratch.write_text(text, encoding="utf-8")
    assert read_document(scratch).values == {"list": (1, 2), "text": "a\nb\n", "1": "one"}


def test_an_alias_is_a_copy(train_file: Path) -> None:
    metrics = "{psnr: &m {type: calculate_psnr, crop_border: 2}, ssim: *m}"
    train_file.write_text(f"{TINY_TRAIN}val: {{metrics: {metrics}}}\n")
    override = "val.metrics.ssim.type=calculate_ssim"
    tree, _ = read_options(TrainTree, train_file, [override])
    assert tree.val.metrics is not None and tree.val.metrics.psnr and tree.val.metrics.ssim
    assert tree.val.metrics.psnr.type == "calculate_psnr"
    assert tree.val.metrics.ssim.type == "calculate_ssim"


def test_whole_numbers_are_rates_too(train_file: Path) -> None:
    train_file.write_text(TINY_TRAIN.replace("lr: 1e-3", "lr: 1"))
    tree: Any = read_options(TrainTree, train_file)[0]
    assert type(tree.train.optim_g.lr) is float


def test_absent_scheduler_is_none_however_it_is_written(train_file: Path) -> None:
    whole = "  scheduler: {type: MultiStepLR, milestones: [50, 80]}\n"
    for text in ("", "  scheduler: ~\n"):
        train_file.write_text(TINY_TRAIN.replace(whole, text))
        assert read_tree(TrainTree, str(train_file), [], check_train).train.scheduler is None


def test_paths_take_variables_and_the_home_folder(
    train_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SETS", "/data/sets")
    monkeypatch.setenv("HOME", "/home/me")
    text = TINY_TRAIN.replace("_gt: gt", "_gt: ${SETS}/DIV2K").replace("_lq: lq", "_lq: ~/lq")
    train_file.write_text(text)
    train: Any = read_options(TrainTree, train_file)[0].datasets.train
    assert (train.dataroot_gt, train.dataroot_lq) == ("/data/sets/DIV2K", "/home/me/lq")


def test_where_a_value_stands(train_file: Path) -> None:
    _, document = read_options(TrainTree, train_file, ["val.val_freq=5"])
    assert document.where(("train", "total_iter")) == f"{train_file}:12 train.total_iter"
    assert document.where(("train", "grad_clip")) == f"{train_file}:11 train.grad_clip"
    assert document.where(("val", "val_freq")) == "--set val.val_freq=5 val.val_freq"
    assert document.where(("val", "other")) == "--set val.val_freq=5 val.other"
    assert document.where(()) == f"{train_file}:1"


# Overrides


def test_overrides(train_file: Path) -> None:
    assignments = [
        "train.total_iter=2000",
        "train:optim_g:lr=2e-4",  # BasicSR's --force_yml
        "val.protocol=rgb",  # no val in the file
        "logger.wandb.project=p",  # two levels that are not there
        "train.scheduler={type: CosineAnnealingRestartLR, periods: [2000]}",
        "datasets.val_2={type: SingleImageDataset, dataroot_lq: a=b}",
        "network_g.rgb_mean=[0.1, 0.2, 0.3]",
        "path.pretrain_network_g=",
        "name=a.b",
        "train.total_iter=3000",  # the last one counts
    ]
    tree: Any = read_options(TrainTree, train_file, assignments)[0]
    assert tree.train.total_iter == 3000
    assert tree.train.optim_g.lr == 2e-4
    assert tree.val.protocol == "rgb"
    assert tree.logger.wandb.project == "p"
    assert tree.train.scheduler.periods == (2000,)
    assert tree.datasets.evaluated()["val_2"].dataroot_lq == "a=b"
    assert tree.network_g.rgb_mean == (0.1, 0.2, 0.3)
    assert tree.network_g.feature_channels == 8
    assert tree.path.pretrain_network_g is None
    assert tree.name == "a.b"


def test_what_is_no_yaml_on_the_command_line_is_text() -> None:
    assert scalar("{}x4", "--set filename_tmpl={}x4") == "{}x4"


@pytest.mark.parametrize(
    "assignment, start",
    [
        ("train.totl_iter=5", "error[OPT11]: unknown key of train (--set train.totl_iter=5"),
        ("trian.total_iter=5", "error[OPT11]: unknown key of the file (--set trian.total_iter=5"),
        ("val.vall.x=1", "error[OPT11]: unknown key of val (--set val.vall.x=1"),
        ("train.total_iter=five", "error[OPT17]: wrong type of total_iter (--set train.total_iter"),
        ("train.total_iter.x=5", "error[OPT32]: an override goes through a value that is no"),
        ("train.scheduler.milestones.0=5", "error[OPT32]: an override goes through a value that"),
        ("train.total_iter", "error[OPT32]: an override needs a key path and a value (--set tra"),
        ("train..total_iter=5", "error[OPT32]: an override needs a key path and a value (--set "),
        ("=5", "error[OPT32]: an override needs a key path and a value (--set =5)"),
        ("name=!!python/name:os.system x", "error[OPT07]: tag not allowed (--set name=!!python"),
        ("name=" + "[" * 50, "error[OPT09]: options are nested too deeply (--set name=[[["),
        (
            "network_g={type: SPAN, upscale: x}",
            "error[OPT17]: wrong type of upscale (--set network",
        ),
        ("network_g={type: SPAN, upscal: 2}", "error[OPT11]: unknown key of SPAN (--set network"),
    ],
)
def test_wrong_override(train_file: Path, assignment: str, start: str) -> None:
    with pytest.raises(OptionError) as caught:
        read_options(TrainTree, train_file, [assignment])
    assert [str(p)[: len(start)] for p in caught.value.problems] == [start]


# Keys without effect


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """The log of restore, which an earlier command of this process may have cut off from root."""
    logger = logging.getLogger("restore")
    logger.addHandler(caplog.handler)
    yield caplog
    logger.removeHandler(caplog.handler)


def test_keys_without_effect_are_named_in_a_warning(
    train_file: Path, logged: pytest.LogCaptureFixture
) -> None:
    text = TINY_TRAIN.replace("upscale: 2}", "upscale: 2, bias: false}")
    text = text.replace("gt_size: 32", "gt_size: 32\n    prefetch_mode: cuda\n    pin_memory: ~")
    train_file.write_text(text + "dist_params: {find_unused_parameters: true}\n")
    read_tree(TrainTree, str(train_file), ["val.pbar=true"], check_train)
    warned = {record.getMessage() for record in logged.records if record.levelname == "WARNING"}
    assert warned == {
        f"{train_file}:9 datasets.train.prefetch_mode has no effect: batches are always made ahead",
        f"{train_file}:12 network_g.bias has no effect: "
        "every convolution of SPAN keeps its bias, as published",
        f"{train_file}:18 dist_params.find_unused_parameters has no effect: "
        "no network here has any",
        "--set val.pbar=true val.pbar has no effect: the bar is always shown",
    }


def test_without_effect_looks_into_further_keys(train_file: Path) -> None:
    class Inner(Section):
        old: int | None = no_effect("long gone")

    class Outer(Section):
        model_config = {"extra": "allow"}
        __pydantic_extra__: dict[str, Inner]

    found = without_effect(Outer.model_validate({"val_2": {"old": 1}, "val_3": {}}))
    assert found == [(("val_2", "old"), "long gone")]


# BasicSR's metrics section


@pytest.mark.parametrize(
    "metrics, name, border",
    [
        ("{psnr: {type: calculate_psnr, crop_border: 3, test_y_channel: true}}", "sr-y", 3),
        ("{ssim: {type: calculate_ssim, crop_border: 0}}", "rgb", 0),
        (
            "{psnr: {type: calculate_psnr, crop_border: 4}, "
            "ssim: {type: calculate_ssim, crop_border: 4, better: higher, input_order: HWC}}",
            "rgb",
            4,
        ),
    ],
)
def test_metrics_are_a_rule_and_a_border(
    train_file: Path, metrics: str, name: str, border: int
) -> None:
    tree = read_tree(TrainTree, str(train_file), [f"val.metrics={metrics}"], check_train)
    assert tree.val.rules(tree.scale) == ((PROTOCOLS[name], border),)


@pytest.mark.parametrize(
    "val, scale, name, border",
    [
        ({}, 2, "sr-y", 2),
        ({}, 1, "rgb", 0),
        ({"protocol": "vdsr-y"}, 3, "vdsr-y", 3),
        ({"protocol": "rgb", "crop_border": 7}, 4, "rgb", 7),
        ({"metrics": {}}, 4, "sr-y", 4),
    ],
)
def test_protocol_and_border(val: dict[str, Any], scale: int, name: str, border: int) -> None:
    options = parse(TrainTree.model_fields["val"].annotation, val, str)  # pyright: ignore
    assert options.rules(scale) == ((PROTOCOLS[name], border),)


@pytest.mark.parametrize(
    "protocol, names",
    [
        (("rgb", "sr-y", "rgb"), ["rgb", "sr-y"]),
        ("all", list(PROTOCOLS)),
        ("vdsr-y", ["vdsr-y"]),
    ],
)
def test_a_test_takes_several_protocols(protocol: Any, names: list[str]) -> None:
    options = parse(TestingOptions, {"protocol": protocol}, str)
    rules = options.rules(4)
    assert [rule.name for rule, _ in rules] == names
    assert all(border == default_border(rule, 4) for rule, border in rules)
    assert options.named is (protocol != "all")


@pytest.mark.parametrize(
    "section, protocol, code",
    [
        (TestingOptions, (), "OPT18"),
        (TestingOptions, ("rgb", "sr_y"), "OPT31"),
        (TestingOptions, ("all",), "OPT31"),
        (TestingOptions, 3, "OPT31"),
        (ValidationOptions, ("rgb", "sr-y"), "OPT31"),  # it chooses the best checkpoint by one
        (ValidationOptions, "all", "OPT31"),
    ],
)
def test_wrong_protocols_are_refused(section: Any, protocol: Any, code: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(section, {"protocol": protocol}, str)
    assert [problem.code for problem in caught.value.problems] == [code]


def test_a_test_says_how_it_restores() -> None:
    plain = parse(TestingOptions, {"tile": "none"}, str)
    assert plain.said == []
    values = {"ensemble": 8, "precision": "bf16", "tile": 96, "tile_overlap": 32, "compile": True}
    said = parse(TestingOptions, values, str).said
    assert said == ["self-ensemble of 8", "tiles of 96 overlapping by 32", "bf16", "compiled"]


# Sections


class Leaf(Section):
    """A choice."""

    type: str = "Leaf"
    size: Count = 1


class Tree(Section):
    """A small tree of its own, so that these tests know every key."""

    count: Count | bool = 1
    where: UserPath | None = None
    leaf: Annotated[Section, OneOf(Catalog("leaf", {"Leaf": Leaf}), lambda s: s)] | None = None


def told(values: dict[str, Any]) -> list[str]:
    with pytest.raises(OptionError) as caught:
        parse(Tree, values, lambda path: "/".join(map(str, path)))
    return [str(problem) for problem in caught.value.problems]


def test_a_section_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(Tree, {}, str).count = 2


def test_defaults_are_checked_beside_what_is_given() -> None:
    class Range(Section):
        low: int = 0
        high: int = 10

        @field_validator("high")
        @classmethod
        def _above_low(cls, high: int, info: ValidationInfo) -> int:
            if high < info.data["low"]:
                raise mistake("OPT18", "high is below low", "a number ≥ low", "change it")
            return high

    with pytest.raises(OptionError) as caught:
        parse(Range, {"low": 20}, lambda path: ".".join(map(str, path)))
    assert str(caught.value) == (
        "error[OPT18]: high is below low (high): got 10; expected a number ≥ low; fix: change it"
    )


def test_a_union_is_refused_once() -> None:
    assert told({"count": "x"}) == [
        "error[OPT17]: wrong value of count (count): got 'x'; "
        "expected a whole number or true or false; fix: change it"
    ]


def test_a_choice_inside_a_union() -> None:
    tree: Any = parse(Tree, {"leaf": {"type": "Leaf", "size": 3}}, str)
    assert tree.leaf == Leaf(size=3)
    assert parse(Tree, {"leaf": None}, str).leaf is None
    assert told({"leaf": {"type": "Leaf", "siz": 3}}) == [
        "error[OPT11]: unknown key of Leaf (leaf/siz): got 'siz'; expected one of type, size; "
        "fix: did you mean 'size'?"
    ]


def test_text_that_is_no_unicode() -> None:
    assert told({"where": "\ud800"}) == [
        "error[OPT17]: wrong type of where (where): got '\\ud800'; expected text in Unicode; "
        "fix: write no lone surrogates"
    ]


OUTSIDE = """
from typing import Literal
from restore.section import Section

class Mine(Section):
    type: Literal["outside_options:Mine"] = "outside_options:Mine"
    depth: int

class Nameless(Section):
    depth: int

class Misnamed(Section):
    type: Literal["Mine"] = "Mine"

number = 5
"""


def test_a_dotted_path_names_an_entry_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outside_options.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        tree: Any = parse(Tree, {"leaf": {"type": "outside_options:Mine", "depth": 3}}, str)
        assert (tree.leaf.type, tree.leaf.depth) == ("outside_options:Mine", 3)
        assert tree.model_dump()["leaf"] == {"type": "outside_options:Mine", "depth": 3}
        for name in ("Nameless", "Misnamed", "number", "absent", ""):
            path = f"outside_options:{name}"
            fix = f"its options need the field type, with the default '{path}'"
            if name in ("absent", ""):
                fix = f"module 'outside_options' has no attribute '{name}'"
            assert told({"leaf": {"type": path}}) == [
                f"error[OPT24]: unknown leaf (leaf/type): got '{path}'; expected one of Leaf; "
                f"fix: {fix}"
            ]
    finally:
        sys.modules.pop("outside_options", None)


@pytest.mark.parametrize("path", ["no_such_module:X", "..x:Y", ":X", "a b:c", "os:system"])
def test_a_dotted_path_to_nothing(path: str) -> None:
    assert told({"leaf": {"type": path}})[0].startswith("error[OPT24]: unknown leaf (leaf/type)")


# Whatever is written

TRICKY = st.sampled_from(
    ["1e5", "0x1F", "0o7", "012", "1_0", ".5", "~", "null", "true", "no", "", " ", "<<", "=", "- a",
     "a: b", "a #b", "#", "!!int 5", "&a", "*a", "? k", "|", ">", "%", "@", "`", "'", '"', "{}",
     "[", "12:30", "2001-01-01", ".nan", "-.inf", "...", "---", "\n", "a\n", "\ta", "a\u2028b",
     "\x85", "\x00", "\ufeff", "\U0001f600", "x" * 300, "ö " * 100]
)  # fmt: skip
TEXT = TRICKY | st.text(max_size=30)
LEAVES = (
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | TEXT
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


def listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: listed(item) for key, item in value.items()}
    return [listed(item) for item in value] if isinstance(value, list | tuple) else value


def same(a: Any, b: Any) -> bool:
    """Equal in value, type and order; 1, 1.0 and True differ."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b and (not isinstance(a, float) or math.copysign(1, a) == math.copysign(1, b))


@settings(max_examples=150)
@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_dump_reads_back(scratch: Path, values: dict[str, Any]) -> None:
    scratch.write_text(dump(values), encoding="utf-8")
    assert same(listed(read_document(scratch).values), values)


def test_resolved_options_read_back(train_file: Path, scratch: Path) -> None:
    tree, _ = read_options(TrainTree, train_file, ["train.optim_g.lr=1e-16", "name='1e5'"])
    scratch.write_text(dump(tree.model_dump()), encoding="utf-8")
    assert read_options(TrainTree, scratch)[0] == tree


YAML_PIECES = st.lists(
    st.sampled_from(
        ["a", "b", ": ", "- ", "\n", "\n  ", "{", "}", "[", "]", ",", '"', "'", "&x ", "*x", "!",
         "!!", "!<", ">", "|2", "%YAML 1.2\n", "%TAG ! ", "---", "...", "# ", "? ", "~", "\\",
         "\\x", "\\UFFFFFFFF", "\t", "<<", "\x85", "\ufeff", "1e5", ".nan", "=", "@", "0o9",
         "!!int ", "!!float ", "!!bool ", "!!seq ", "!!set ", "9" * 5000, "%YAML 1."]
    ),
    max_size=14,
).map("".join)  # fmt: skip


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode) | YAML_PIECES.map(str.encode))
def test_any_file_is_read_or_refused(scratch: Path, raw: bytes) -> None:
    scratch.write_bytes(raw)
    try:
        read_options(TrainTree, scratch)
    except OptionError as error:
        assert all(str(problem).count("\n") == 0 for problem in error.problems)
    else:
        raise AssertionError("no such file can be a training file")


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(list(TrainTree.model_fields)), VALUES, min_size=1))
def test_any_values_are_refused_and_nothing_else(scratch: Path, values: dict[str, Any]) -> None:
    scratch.write_text(dump(values), encoding="utf-8")
    with pytest.raises(OptionError):
        read_options(TrainTree, scratch)


@settings(max_examples=200)
@given(TEXT, YAML_PIECES)
def test_any_override_is_taken_or_refused(scratch: Path, key: str, value: str) -> None:
    scratch.write_text(TINY_TRAIN)
    try:
        read_options(TrainTree, scratch, [f"{key}={value}"])
    except OptionError as error:
        assert error.problems[0].where.startswith("--set ")
    else:
        raise AssertionError("no random key is one of ours")
