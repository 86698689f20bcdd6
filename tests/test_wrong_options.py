"""Wrong option files: each with the one line that it is answered with, before torch is loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from restore.archs.options import SpanOptions
from restore.archs.table import ARCHS
from restore.commands.shared import read_tree
from restore.data.options import EVALUATION_SETS, TRAINING_SETS, PairedImageTraining
from restore.errors import OptionError
from restore.losses.options import LOSSES, L1Loss
from restore.options import MAX_BYTES
from restore.recipes.checks import check_test, check_train
from restore.recipes.trees import TestingOptions, TestTree, TrainTree
from restore.section import Section
from restore.training.options import OPTIMISERS, SCHEDULES, Adam, TrainOptions

ROOT = Path(__file__).resolve().parent.parent

TRAIN = """\
name: tiny
scale: 2
datasets:
  train:
    type: PairedImageDataset
    dataroot_gt: gt
    dataroot_lq: lq
    gt_size: 32
    batch_size_per_gpu: 4
  val:
    type: PairedImageDataset
    dataroot_gt: gt
    dataroot_lq: lq
network_g:
  type: SPAN
  feature_channels: 8
  upscale: 2
train:
  total_iter: 100
  optim_g:
    type: Adam
    lr: 1e-3
  scheduler:
    type: MultiStepLR
    milestones: [50, 80]
  pixel_opt:
    type: L1Loss
val:
  val_freq: 10
"""

TEST = """\
name: tiny_test
scale: 2
datasets:
  test_1:
    type: SingleImageDataset
    dataroot_lq: lq
network_g:
  type: SPAN
  upscale: 2
"""

VAL_SET = "val:\n    type: PairedImageDataset\n    dataroot_gt: gt\n    dataroot_lq: lq\n"
SCHEDULER = "type: MultiStepLR\n    milestones: [50, 80]"
COSINE = "type: CosineAnnealingRestartLR\n    periods: "
CYCLIC = "type: CosineAnnealingRestartCyclicLR\n    periods: "
NETWORK = "network_g:\n  type: SPAN\n  feature_channels: 8\n  upscale: 2\n"


def names(known: Iterable[str]) -> str:
    return ", ".join(sorted(known))


def keys(section: type[Section]) -> str:
    return ", ".join(section.model_fields)


def refused(text: str | bytes, overrides: Iterable[str] = ()) -> list[str]:
    """The lines that `tiny.yml` with this text is answered with; a relative name, as users type."""
    data = text.encode() if isinstance(text, str) else text
    Path("tiny.yml").write_bytes(data)
    with pytest.raises(OptionError) as caught:
        if b"tiny_test" in data:
            read_tree(TestTree, "tiny.yml", list(overrides), check_test)
        else:
            read_tree(TrainTree, "tiny.yml", list(overrides), check_train)
    return str(caught.value).splitlines()


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times"
    return text.replace(old, new)


@pytest.fixture(autouse=True)
def _in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NOT_SET_ANYWHERE", raising=False)


def test_unchanged_files_are_right() -> None:
    Path("tiny.yml").write_text(TRAIN)
    assert read_tree(TrainTree, "tiny.yml", [], check_train).train.total_iter == 100
    Path("tiny.yml").write_text(TEST)
    assert list(read_tree(TestTree, "tiny.yml", [], check_test).datasets.evaluated()) == ["test_1"]


BOMB = "a0: &a0 [1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
WIDE = "a: &a [" + "1, " * 2000 + "1]\nb: [" + ", ".join(["*a"] * 20) + "]\n"
CHAIN = "a0: &a0 1\n" + "".join(
    f"a{n}: &a{n} {'[' * 20}*a{n - 1}{']' * 20}\n" for n in range(1, 90)
)

WHOLE_FILES = {
    "empty": (
        "",
        "error[OPT03]: option file is empty (tiny.yml): got no content; expected options; "
        "fix: see the files in options/",
    ),
    "only comments": (
        "# to do\n",
        "error[OPT03]: option file is empty (tiny.yml): got no content; expected options; "
        "fix: see the files in options/",
    ),
    "a list": (
        "- name: tiny\n",
        "error[OPT17]: an option file is a mapping (tiny.yml): got tuple; "
        "expected 'key: value' lines; fix: see the files in options/",
    ),
    "not UTF-8": (
        b"name: caf\xe9\n",
        "error[OPT05]: option file is not UTF-8 (tiny.yml): got byte 9 = 0xe9; "
        "expected UTF-8 text; fix: save it as UTF-8",
    ),
    "too large": (
        b"#" * (MAX_BYTES + 1),
        "error[OPT06]: option file too large (tiny.yml): got more than 1048576 bytes; "
        "expected at most 1048576 bytes; fix: is this really an option file?",
    ),
    "null character": (
        "name: a\0b\n",
        "error[OPT04]: a character that YAML does not allow (tiny.yml): "
        "got character 0x00 at 7; expected printable text; fix: remove it",
    ),
    "escape beyond Unicode": (
        'name: "\\U00110000"\n',
        "error[OPT04]: a number that YAML does not allow (tiny.yml): "
        "got chr() arg not in range(0x110000); expected valid YAML; "
        "fix: check escapes such as \\U0001F600 and the %YAML line",
    ),
    "endless version": (
        "%YAML 1." + "1" * 5000 + "\n---\nname: tiny\n",
        "error[OPT04]: a number that YAML does not allow (tiny.yml): got Exceeds the limit "
        "(4300 digits) for integer string conversion: value has 5000 digits; use "
        "sys.set_int_max_str_digits() to increase the limit; expected valid YAML; "
        "fix: check escapes such as \\U0001F600 and the %YAML line",
    ),
    "two documents": (
        "name: tiny\n---\nname: other\n",
        "error[OPT04]: YAML syntax: but found another document (tiny.yml:2:1): got '---'; "
        "expected valid YAML; fix: check indentation, colons and quotes on that line",
    ),
    "python tag": (
        "name: !!python/object/apply:os.system ['touch owned']\n",
        "error[OPT07]: tag not allowed (tiny.yml:1): got !!python/object/apply:os.system; "
        "expected plain values; fix: remove the tag; option files build no objects",
    ),
    "python tag on a key": (
        "!!python/name:os.system name: tiny\n",
        "error[OPT07]: tag not allowed (tiny.yml:1): got !!python/name:os.system; "
        "expected plain values; fix: remove the tag; option files build no objects",
    ),
    "a list as key": (
        "? [a, b]\n: 1\n",
        "error[OPT17]: a key must be text (tiny.yml:1): got a collection; expected text; "
        "fix: write a plain key",
    ),
    "alias bomb": (
        BOMB,
        "error[OPT08]: too many aliases (tiny.yml:2): got more than 100 expansions; "
        "expected at most 100; fix: write the values out",
    ),
    "few aliases to a long list": (
        WIDE,
        "error[OPT08]: too many values (tiny.yml:1): got more than 10000, aliases expanded; "
        "expected at most 10000; fix: is this really an option file?",
    ),
    "more values than any file needs": (
        "a: [" + "1, " * 40_000 + "1]",
        "error[OPT08]: too many values (tiny.yml:1): got more than 10000, aliases expanded; "
        "expected at most 10000; fix: is this really an option file?",
    ),
    "an alias of itself": (
        "a: &a [*a]\n",
        "error[OPT09]: options are nested too deeply (tiny.yml:1): got depth > 32; "
        "expected depth ≤ 32; fix: flatten the file",
    ),
    "20,000 brackets": (
        "a: " + "[" * 20_000,
        "error[OPT09]: options are nested too deeply (tiny.yml:1): got depth > 32; "
        "expected depth ≤ 32; fix: flatten the file",
    ),
    "aliases nested in aliases": (
        CHAIN,
        "error[OPT09]: options are nested too deeply (tiny.yml:2): got depth > 32; "
        "expected depth ≤ 32; fix: flatten the file",
    ),
}


@pytest.mark.parametrize("text, line", WHOLE_FILES.values(), ids=WHOLE_FILES)
def test_whole_file(text: str | bytes, line: str) -> None:
    assert refused(text) == [line]
    assert os.listdir() == ["tiny.yml"]


# what it is: (the text in TRAIN, what stands there instead, the answer)
CHANGES = {
    "syntax": (
        "scale: 2\ndatasets",
        "scale: [2\ndatasets",
        "error[OPT04]: YAML syntax: expected ',' or ']', but got ':' (tiny.yml:3:9): "
        "got 'datasets:'; expected valid YAML; "
        "fix: check indentation, colons and quotes on that line",
    ),
    "long line of wrong syntax": (
        "    gt_size: 32",
        "    ]" + "x" * 300,
        "error[OPT04]: YAML syntax: expected <block end>, but found ']' (tiny.yml:8:5): "
        f"got ']{'x' * 56}…'; expected valid YAML; "
        "fix: check indentation, colons and quotes on that line",
    ),
    "duplicate key": (
        "train:\n  total_iter: 100\n",
        "train:\n  total_iter: 100\n  total_iter: 200\n",
        "error[OPT10]: key 'total_iter' stands twice (tiny.yml:20): got also at tiny.yml:19; "
        "expected each key once; fix: remove one",
    ),
    "unknown key at the top": (
        "val:\n  val_freq",
        "vall:\n  val_freq",
        "error[OPT11]: unknown key of the file (tiny.yml:28 vall): got 'vall'; "
        f"expected one of {keys(TrainTree)}; fix: did you mean 'val'?",
    ),
    "unknown key in network_g": (
        "feature_channels: 8",
        "feature_chanels: 8",
        "error[OPT11]: unknown key of SPAN (tiny.yml:16 network_g.feature_chanels): "
        f"got 'feature_chanels'; expected one of {keys(SpanOptions)}; "
        "fix: did you mean 'feature_channels'?",
    ),
    "unknown key in datasets.train": (
        "batch_size_per_gpu: 4",
        "batch_size_per_gpu: 4\n    use_hflp: true",
        "error[OPT11]: unknown key of PairedImageDataset "
        "(tiny.yml:10 datasets.train.use_hflp): got 'use_hflp'; "
        f"expected one of {keys(PairedImageTraining)}; fix: did you mean 'use_hflip'?",
    ),
    "unknown key in optim_g": (
        "lr: 1e-3",
        "lr: 1e-3\n    weight_dcay: 0",
        "error[OPT11]: unknown key of Adam (tiny.yml:23 train.optim_g.weight_dcay): "
        f"got 'weight_dcay'; expected one of {keys(Adam)}; fix: did you mean 'weight_decay'?",
    ),
    "unknown key like no other": (
        "type: L1Loss",
        "type: L1Loss\n    zzz: 1",
        "error[OPT11]: unknown key of L1Loss (tiny.yml:28 train.pixel_opt.zzz): got 'zzz'; "
        f"expected one of {keys(L1Loss)}; fix: remove it",
    ),
    "unknown set": (
        "  val:\n    type",
        "  vall:\n    type",
        "error[OPT11]: unknown key of datasets (tiny.yml:10 datasets.vall): got 'vall'; "
        "expected one of train, val, val_2; fix: did you mean 'val'?",
    ),
    "YAML 1.1's merge key": (
        "type: L1Loss",
        "<<: {type: L1Loss}",
        "error[OPT12]: the loss has no type (tiny.yml:26 train.pixel_opt): "
        "got {'<<': {'type': 'L1Loss'}}; "
        f"expected type: one of {names(LOSSES)}; fix: add 'type'",
    ),
    "no network_g": (
        NETWORK,
        "",
        "error[OPT12]: required key 'network_g' is missing (tiny.yml:1 network_g): got nothing; "
        "expected network_g; fix: add 'network_g: …'",
    ),
    "no lr": (
        "    lr: 1e-3\n",
        "",
        "error[OPT12]: required key 'lr' is missing (tiny.yml:20 train.optim_g.lr): got nothing; "
        "expected lr; fix: add 'lr: …'",
    ),
    "network_g without type": (
        "  type: SPAN\n",
        "",
        "error[OPT12]: the network has no type (tiny.yml:14 network_g): "
        "got {'feature_channels': 8, 'upscale': 2}; "
        f"expected type: one of {names(ARCHS)}; fix: add 'type'",
    ),
    "network_g is text": (
        NETWORK,
        "network_g: SPAN\n",
        "error[OPT17]: a network is a mapping (tiny.yml:14 network_g): got 'SPAN'; "
        f"expected a mapping with 'type'; fix: type: one of {names(ARCHS)}",
    ),
    "nothing below val": (
        "val:\n  val_freq: 10",
        "val:",
        "error[OPT17]: wrong type of val (tiny.yml:28 val): got None; expected a mapping; "
        "fix: write 'key: value' lines below it",
    ),
    "flip: no": (
        "batch_size_per_gpu: 4",
        "batch_size_per_gpu: 4\n    use_hflip: no",
        "error[OPT15]: wrong type of use_hflip (tiny.yml:10 datasets.train.use_hflip): got 'no'; "
        "expected true or false; fix: use true or false",
    ),
    "flip: 1": (
        "batch_size_per_gpu: 4",
        "batch_size_per_gpu: 4\n    use_hflip: 1",
        "error[OPT17]: wrong type of use_hflip (tiny.yml:10 datasets.train.use_hflip): got 1; "
        "expected true or false; fix: use true or false",
    ),
    "name: 001": (
        "name: tiny",
        "name: 001",
        "error[OPT16]: wrong type of name (tiny.yml:1 name): got 1; expected text; "
        "fix: put it in quotes",
    ),
    "name: nothing": (
        "name: tiny",
        "name:",
        "error[OPT17]: wrong type of name (tiny.yml:1 name): got None; expected text; "
        "fix: write text",
    ),
    'batch: "4"': (
        "per_gpu: 4",
        'per_gpu: "4"',
        "error[OPT17]: wrong type of batch_size_per_gpu "
        "(tiny.yml:9 datasets.train.batch_size_per_gpu): got '4'; expected a whole number; "
        "fix: write it without quotes",
    ),
    "batch: four": (
        "per_gpu: 4",
        "per_gpu: four",
        "error[OPT17]: wrong type of batch_size_per_gpu "
        "(tiny.yml:9 datasets.train.batch_size_per_gpu): got 'four'; expected a whole number; "
        "fix: write a whole number",
    ),
    "batch: 4.0": (
        "per_gpu: 4",
        "per_gpu: 4.0",
        "error[OPT17]: wrong type of batch_size_per_gpu "
        "(tiny.yml:9 datasets.train.batch_size_per_gpu): got 4.0; expected a whole number; "
        "fix: write a whole number",
    ),
    "batch: 0": (
        "per_gpu: 4",
        "per_gpu: 0",
        "error[OPT18]: batch_size_per_gpu is out of range "
        "(tiny.yml:9 datasets.train.batch_size_per_gpu): got 0; expected a number ≥ 1; "
        "fix: change it",
    ),
    "empty path": (
        "    dataroot_lq: lq\n    gt_size",
        "    dataroot_lq: ''\n    gt_size",
        "error[OPT18]: wrong length of dataroot_lq (tiny.yml:7 datasets.train.dataroot_lq): "
        "got ''; expected a length ≥ 1; fix: change it",
    ),
    "one beta": (
        "lr: 1e-3",
        "lr: 1e-3\n    betas: [0.9]",
        "error[OPT18]: wrong length of betas (tiny.yml:23 train.optim_g.betas): got (0.9,); "
        "expected a length ≥ 2; fix: change it",
    ),
    "three betas": (
        "lr: 1e-3",
        "lr: 1e-3\n    betas: [0.9, 0.99, 0.999]",
        "error[OPT18]: wrong length of betas (tiny.yml:23 train.optim_g.betas): "
        "got (0.9, 0.99, 0.999); expected a length ≤ 2; fix: change it",
    ),
    "negative milestone": (
        "[50, 80]",
        "[-50, 80]",
        "error[OPT18]: milestones[0] is out of range (tiny.yml:25 train.scheduler.milestones.0): "
        "got -50; expected a number ≥ 1; fix: change it",
    ),
    "a number for a list": (
        "[50, 80]",
        "50",
        "error[OPT17]: wrong type of milestones (tiny.yml:25 train.scheduler.milestones): got 50; "
        "expected a list; fix: write [a, b, …]",
    ),
    "lr: .nan": (
        "1e-3",
        ".nan",
        "error[OPT19]: lr is not finite (tiny.yml:22 train.optim_g.lr): got nan; "
        "expected a finite number; fix: change it",
    ),
    "lr: 1e999": (
        "1e-3",
        "1e999",
        "error[OPT19]: lr is not finite (tiny.yml:22 train.optim_g.lr): got inf; "
        "expected a finite number; fix: change it",
    ),
    "lr of 400 digits": (
        "1e-3",
        "1" + "0" * 400,
        "error[OPT17]: wrong type of lr (tiny.yml:22 train.optim_g.lr): "
        f"got 1{'0' * 56}…; expected a number; fix: write a number",
    ),
    "num_gpu: all": (
        "name: tiny\n",
        "name: tiny\nnum_gpu: all\n",
        "error[OPT17]: wrong value of num_gpu (tiny.yml:2 num_gpu): got 'all'; "
        "expected a whole number or 'auto'; fix: change it",
    ),
    "seed out of range": (
        "name: tiny\n",
        "name: tiny\nmanual_seed: 2147483648\n",
        "error[OPT18]: manual_seed is out of range (tiny.yml:2 manual_seed): got 2147483648; "
        "expected a number < 2147483648; fix: change it",
    ),
    "name leaves the folder": (
        "name: tiny",
        "name: ../../x",
        "error[OPT20]: name cannot be a folder's name (tiny.yml:1 name): got '../../x'; "
        "expected 1 to 100 letters, digits, '.', '_', '+', '-'; fix: choose a plain name",
    ),
    "name is the parent": (
        "name: tiny",
        "name: ..",
        "error[OPT20]: name cannot be a folder's name (tiny.yml:1 name): got '..'; "
        "expected 1 to 100 letters, digits, '.', '_', '+', '-'; fix: choose a plain name",
    ),
    "name is absolute": (
        "name: tiny",
        "name: /etc/x",
        "error[OPT20]: name cannot be a folder's name (tiny.yml:1 name): got '/etc/x'; "
        "expected 1 to 100 letters, digits, '.', '_', '+', '-'; fix: choose a plain name",
    ),
    "name of 300 characters": (
        "name: tiny",
        "name: " + "x" * 300,
        f"error[OPT20]: name cannot be a folder's name (tiny.yml:1 name): got '{'x' * 56}…; "
        "expected 1 to 100 letters, digits, '.', '_', '+', '-'; fix: choose a plain name",
    ),
    "name with a null character": (
        "name: tiny",
        'name: "a\\0b"',
        "error[OPT20]: name cannot be a folder's name (tiny.yml:1 name): got 'a\\x00b'; "
        "expected 1 to 100 letters, digits, '.', '_', '+', '-'; fix: choose a plain name",
    ),
    "template of two": (
        "gt_size: 32",
        "gt_size: 32\n    filename_tmpl: '{}{}'",
        "error[OPT23]: a file name template may hold only one {} "
        "(tiny.yml:9 datasets.train.filename_tmpl): got '{}{}'; "
        "expected text with exactly one {} and no other braces or slashes; "
        "fix: write for example '{}x4'",
    ),
    "template that looks inside": (
        "gt_size: 32",
        "gt_size: 32\n    filename_tmpl: '{0.__class__}'",
        "error[OPT23]: a file name template may hold only one {} "
        "(tiny.yml:9 datasets.train.filename_tmpl): got '{0.__class__}'; "
        "expected text with exactly one {} and no other braces or slashes; "
        "fix: write for example '{}x4'",
    ),
    "template with a folder": (
        "gt_size: 32",
        "gt_size: 32\n    filename_tmpl: '../{}'",
        "error[OPT23]: a file name template may hold only one {} "
        "(tiny.yml:9 datasets.train.filename_tmpl): got '../{}'; "
        "expected text with exactly one {} and no other braces or slashes; "
        "fix: write for example '{}x4'",
    ),
    "unknown network": (
        "type: SPAN",
        "type: SPANN",
        "error[OPT24]: unknown network (tiny.yml:15 network_g.type): got 'SPANN'; "
        f"expected one of {names(ARCHS)}; fix: did you mean 'SPAN'?",
    ),
    "unknown loss": (
        "type: L1Loss",
        "type: L1Los",
        "error[OPT24]: unknown loss (tiny.yml:27 train.pixel_opt.type): got 'L1Los'; "
        f"expected one of {names(LOSSES)}; fix: did you mean 'L1Loss'?",
    ),
    "unknown scheduler": (
        "type: MultiStepLR",
        "type: StepLR",
        "error[OPT24]: unknown scheduler (tiny.yml:24 train.scheduler.type): got 'StepLR'; "
        f"expected one of {names(SCHEDULES)}; fix: did you mean 'MultiStepLR'?",
    ),
    "unknown optimiser": (
        "type: Adam",
        "type: Zzz",
        "error[OPT24]: unknown optimiser (tiny.yml:21 train.optim_g.type): got 'Zzz'; "
        f"expected one of {names(OPTIMISERS)}; fix: choose one of the known names",
    ),
    "unknown training set": (
        "    type: PairedImageDataset\n    dataroot_gt: gt\n    dataroot_lq: lq\n    gt_size",
        "    type: PairedImageDataSet\n    dataroot_gt: gt\n    dataroot_lq: lq\n    gt_size",
        "error[OPT24]: unknown training data set (tiny.yml:5 datasets.train.type): "
        f"got 'PairedImageDataSet'; expected one of {names(TRAINING_SETS)}; "
        "fix: did you mean 'PairedImageDataset'?",
    ),
    "unknown validation set": (
        "  val:\n    type: PairedImageDataset",
        "  val:\n    type: SingleImageDataSet",
        "error[OPT24]: unknown data set (tiny.yml:11 datasets.val.type): got 'SingleImageDataSet'; "
        f"expected one of {names(EVALUATION_SETS)}; fix: did you mean 'SingleImageDataset'?",
    ),
    "a dotted path to something else": (
        "type: SPAN",
        "type: os:system",
        "error[OPT24]: unknown network (tiny.yml:15 network_g.type): got 'os:system'; "
        f"expected one of {names(ARCHS)}; "
        "fix: its options need the field type, with the default 'os:system'",
    ),
    "means for other channels": (
        "feature_channels: 8",
        "num_in_ch: 1",
        "error[OPT25]: rgb_mean has 3 values for num_in_ch 1 (tiny.yml:14 network_g.rgb_mean): "
        "got (0.4488, 0.4371, 0.404); expected 1 values; "
        "fix: give one mean per input channel",
    ),
    "gt_size not divisible": (
        "gt_size: 32",
        "gt_size: 33",
        "error[OPT26]: gt_size is not a multiple of the scale "
        "(tiny.yml:8 datasets.train.gt_size): got 33; expected a multiple of 2; "
        "fix: use 32 or 34",
    ),
    "gt_size below the scale": (
        "gt_size: 32",
        "gt_size: 1",
        "error[OPT26]: gt_size is not a multiple of the scale "
        "(tiny.yml:8 datasets.train.gt_size): got 1; expected a multiple of 2; fix: use 2",
    ),
    "milestone beyond the end": (
        "[50, 80]",
        "[50, 180]",
        "error[OPT27]: milestones beyond the end of training "
        "(tiny.yml:25 train.scheduler.milestones): got 180; expected at most total_iter = 100; "
        "fix: shorten them",
    ),
    "milestones unsorted": (
        "[50, 80]",
        "[80, 50]",
        "error[OPT28]: milestones are not ascending (tiny.yml:25 train.scheduler.milestones): "
        "got [80, 50]; expected each larger than the one before; fix: sort them",
    ),
    "a milestone twice": (
        "[50, 80]",
        "[50, 50]",
        "error[OPT28]: milestones are not ascending (tiny.yml:25 train.scheduler.milestones): "
        "got [50, 50]; expected each larger than the one before; fix: sort them",
    ),
    "periods too short": (
        SCHEDULER,
        COSINE + "[40, 59]\n    restart_weights: [1, 1]",
        "error[OPT27]: the periods end before training does "
        "(tiny.yml:25 train.scheduler.periods): got sum 99; "
        "expected at least total_iter = 100; fix: lengthen the last period",
    ),
    "no periods": (
        SCHEDULER,
        COSINE + "[]",
        "error[OPT18]: wrong length of periods (tiny.yml:25 train.scheduler.periods): got (); "
        "expected a length ≥ 1; fix: change it",
    ),
    "weights do not match the periods": (
        SCHEDULER,
        COSINE + "[50, 50]\n    restart_weights: [1]",
        "error[OPT34]: restart_weights does not match periods "
        "(tiny.yml:26 train.scheduler.restart_weights): got 1 values; expected 2 values; "
        "fix: give one per period",
    ),
    "eta_mins do not match the periods": (
        SCHEDULER,
        CYCLIC + "[50, 50]\n    restart_weights: [1, 1]\n    eta_mins: [0.1]",
        "error[OPT34]: eta_mins does not match periods "
        "(tiny.yml:27 train.scheduler.eta_mins): got 1 values; expected 2 values; "
        "fix: give one per period",
    ),
    "weights do not match the restarts": (
        "type: MultiStepLR",
        "type: MultiStepRestartLR\n    restarts: [0, 60]",
        "error[OPT34]: restarts and restart_weights differ in length "
        "(tiny.yml:25 train.scheduler.restarts): got 2 and 1; expected one weight per restart; "
        "fix: make them equal",
    ),
    "ema_decay 1.5": (
        "total_iter: 100",
        "total_iter: 100\n  ema_decay: 1.5",
        "error[OPT29]: ema_decay is out of range (tiny.yml:20 train.ema_decay): got 1.5; "
        "expected a number in [0, 1); fix: try 0.999",
    ),
    "unset variable": (
        "    dataroot_lq: lq\n    gt_size",
        "    dataroot_lq: ${NOT_SET_ANYWHERE}/lq\n    gt_size",
        "error[OPT30]: environment variable NOT_SET_ANYWHERE is not set "
        "(tiny.yml:7 datasets.train.dataroot_lq): got '${NOT_SET_ANYWHERE}/lq'; "
        "expected a variable that exists; "
        "fix: export NOT_SET_ANYWHERE=… or write the path itself",
    ),
    "unknown protocol": (
        "val_freq: 10",
        "protocol: sr_y",
        "error[OPT31]: unknown value of protocol (tiny.yml:29 val.protocol): got 'sr_y'; "
        "expected 'sr-y', 'sr-y-rounded', 'vdsr-y', 'grl-y', 'rgb', 'denoise-rgb', 'grl-rgb', "
        "'gopro-rgb', 'gopro-unrounded', 'sidd-val', 'mirnet-rgb3d', 'sots-rgb', 'dpdd-rgb' or "
        "'realblur-rgb'; fix: did you mean 'sr-y'?",
    ),
    "unknown metric": (
        "val_freq: 10",
        "metrics: {psnr: {type: calculate_pnsr, crop_border: 2}}",
        "error[OPT31]: unknown value of type (tiny.yml:29 val.metrics.psnr.type): "
        "got 'calculate_pnsr'; expected 'calculate_psnr' or 'calculate_ssim'; "
        "fix: did you mean 'calculate_psnr'?",
    ),
    "no shuffling": (
        "gt_size: 32",
        "gt_size: 32\n    use_shuffle: false",
        "error[OPT31]: unknown value of use_shuffle (tiny.yml:9 datasets.train.use_shuffle): "
        "got False; expected True; fix: change it",
    ),
    "scale is not the network's": (
        "scale: 2\ndatasets",
        "scale: 4\ndatasets",
        "error[OPT33]: scale differs from SPAN's (tiny.yml:2 scale): got 4; "
        "expected 2, as network_g says; fix: make both the same",
    ),
    "a degradation that keeps the size at scale 2": (
        VAL_SET,
        "val:\n    type: DegradedImageDataset\n    dataroot_gt: gt\n"
        "    degradation: {type: Haze}\n",
        "error[OPT36]: Haze keeps the image's size (tiny.yml:13 datasets.val.degradation): "
        "got scale 2; expected scale 1; fix: use BicubicDown",
    ),
    "a range that runs backwards": (
        VAL_SET,
        "val:\n    type: DegradedImageDataset\n    dataroot_gt: gt\n"
        "    degradation: {type: MotionBlur, path_length: [20, 8]}\n",
        "error[OPT18]: a range runs backwards (tiny.yml:13 datasets.val.degradation.path_length): "
        "got (20, 8); expected [low, high]; fix: swap the two numbers",
    ),
    "pairing with a template": (
        VAL_SET,
        f"{VAL_SET}    filename_tmpl: '{{}}x2'\n    pairing: sidd\n",
        "error[OPT35]: pairing and filename_tmpl are both given (tiny.yml:15 "
        "datasets.val.pairing): got 'sidd'; expected one of them; "
        "fix: remove filename_tmpl; this pairing has its own names",
    ),
    "unknown pairing": (
        VAL_SET,
        f"{VAL_SET}    pairing: gropo\n",
        "error[OPT31]: unknown value of pairing (tiny.yml:14 datasets.val.pairing): got 'gropo'; "
        "expected 'template', 'gopro', 'sidd' or 'reside'; fix: did you mean 'gopro'?",
    ),
    "two rules": (
        "val_freq: 10",
        "metrics:\n    psnr: {type: calculate_psnr, crop_border: 2, test_y_channel: true}\n"
        "    ssim: {type: calculate_ssim, crop_border: 2}",
        "error[OPT35]: metrics under different rules in one run (tiny.yml:29 val.metrics): "
        "got different crop_border or test_y_channel; expected the same for all; "
        "fix: test once per rule",
    ),
    "protocol and metrics": (
        "val_freq: 10",
        "protocol: rgb\n  metrics: {psnr: {type: calculate_psnr, crop_border: 2}}",
        "error[OPT35]: protocol and metrics are both given (tiny.yml:29 val.protocol): "
        "got rgb and metrics; expected one of them; fix: remove val.metrics",
    ),
    "border and metrics": (
        "val_freq: 10",
        "crop_border: 4\n  metrics: {psnr: {type: calculate_psnr, crop_border: 2}}",
        "error[OPT35]: crop_border and metrics are both given (tiny.yml:29 val.crop_border): "
        "got 4 and metrics; expected one of them; "
        "fix: remove val.crop_border; each metric has its own",
    ),
}


@pytest.mark.parametrize("old, new, line", CHANGES.values(), ids=CHANGES)
def test_one_mistake(old: str, new: str, line: str) -> None:
    assert refused(changed(TRAIN, old, new)) == [line]
    assert os.listdir() == ["tiny.yml"]


TEST_CHANGES = {
    "no set": (
        "  test_1:\n    type: SingleImageDataset\n    dataroot_lq: lq\n",
        "  {}\n",
        "error[OPT12]: no data set to test (tiny.yml:3 datasets): got none; expected test_1 with "
        f"type: one of {', '.join(EVALUATION_SETS)}; fix: add 'test_1: …'",
    ),
    "unknown set": (
        "test_1",
        "tset_1",
        "error[OPT11]: unknown key of datasets (tiny.yml:4 datasets.tset_1): got 'tset_1'; "
        "expected one of test_1, test_2; fix: did you mean 'test_1'?",
    ),
    "a key of training": (
        "scale: 2\ndatasets",
        "scale: 2\nval: {val_freq: 100}\ndatasets",
        "error[OPT11]: unknown key of val (tiny.yml:3 val.val_freq): got 'val_freq'; "
        f"expected one of {', '.join(TestingOptions.model_fields)}; "
        "fix: remove it",
    ),
}


@pytest.mark.parametrize("old, new, line", TEST_CHANGES.values(), ids=TEST_CHANGES)
def test_one_mistake_in_a_test_file(old: str, new: str, line: str) -> None:
    assert refused(changed(TEST, old, new)) == [line]


def test_missing_file_and_directory() -> None:
    def answer(path: str) -> str:
        with pytest.raises(OptionError) as caught:
            read_tree(TrainTree, path, [], check_train)
        return str(caught.value)

    missing = "got no such file; expected a YAML file; fix: check the path after -opt"
    os.mkdir("options")
    assert answer("nope.yml") == f"error[OPT01]: option file not found (nope.yml): {missing}"
    assert answer("a\0b\n") == f"error[OPT01]: option file not found (a\\x00b\\n): {missing}"
    assert answer("options") == (
        "error[OPT02]: the option file is a directory (options): got a directory; "
        "expected a YAML file; fix: name a file inside it"
    )
    assert answer("x" * 300) == (
        f"error[OPT01]: option file cannot be read ({'x' * 300}): got File name too long; "
        "expected a readable file; fix: check its permissions"
    )


def test_a_file_of_too_many_values_is_given_up_while_it_is_scanned(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("yaml.compose", lambda *_, **__: pytest.fail("built what it refuses"))
    text, line = WHOLE_FILES["more values than any file needs"]
    assert refused(text) == [line]


def test_endless_file_is_read_no_further_than_the_limit() -> None:
    with pytest.raises(OptionError, match=r"error\[OPT06\].*\(/dev/zero\)"):
        read_tree(TrainTree, "/dev/zero", [], check_train)


MANY = """\
name: a/b
scale: two
vall: {}
datasets:
  train:
    type: PairedImageDataset
    dataroot_gt: gt
    dataroot_lq: ${NOT_SET_ANYWHERE}
    gt_siz: 32
    batch_size_per_gpu: 4
  val:
    type: Nothing
network_g: {type: SPAN, upscale: 2, chanels: 3, rgb_mean: [0.5]}
train:
  scheduler:
    type: MultiStepLR
    milestones: [50, x, 0]
  total_iter: 100
  optim_g: {type: Adam, lr: .inf, lrr: 1}
"""


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    lines = refused(MANY)
    found = [line.partition(" ")[0] + line.partition(" (tiny.yml:")[2].partition(")")[0]
             for line in lines]  # fmt: skip
    assert found == [
        "error[OPT20]:1 name",
        "error[OPT17]:2 scale",
        "error[OPT11]:3 vall",
        "error[OPT12]:5 datasets.train.gt_size",
        "error[OPT30]:8 datasets.train.dataroot_lq",
        "error[OPT11]:9 datasets.train.gt_siz",
        "error[OPT24]:12 datasets.val.type",
        "error[OPT11]:13 network_g.chanels",
        "error[OPT25]:13 network_g.rgb_mean",
        "error[OPT12]:14 train.pixel_opt",
        "error[OPT17]:17 train.scheduler.milestones.1",
        "error[OPT18]:17 train.scheduler.milestones.2",
        "error[OPT19]:19 train.optim_g.lr",
        "error[OPT11]:19 train.optim_g.lrr",
    ]


def test_checks_between_sections_are_all_made() -> None:
    text = changed(TRAIN, "gt_size: 32", "gt_size: 31").replace("[50, 80]", "[180, 50]")
    text = text.replace("scale: 2\nd", "scale: 4\nd")
    codes = [line[6:11] for line in refused(text)]
    assert codes == ["OPT33", "OPT26", "OPT28", "OPT27"]


def test_required_keys_of_a_section_are_all_named() -> None:
    assert [line for line in refused(changed(TRAIN, "  total_iter: 100\n", "")) if "OPT12" in line]
    lines = refused("name: tiny\ntrain: {}\n")
    needed = [name for name, f in TrainOptions.model_fields.items() if f.is_required()]
    assert needed and all(f"required key '{key}'" in "\n".join(lines) for key in needed)


# The real command. It answers before torch is imported, and leaves nothing behind.

PROBE = """
import sys
from restore.commands.main import main
code = main(sys.argv[1:])
print("torch" if "torch" in sys.modules else "no torch")
sys.exit(code)
"""

COMMANDS = {
    "train, no file": (["train", "-opt", "nope.yml"], 1),
    "train, many mistakes": (["train", "-opt", "many.yml"], 14),
    "train, checks between sections": (["train", "-opt", "tiny.yml", "--set", "scale=4"], 1),
    "test, a wrong override": (["test", "-opt", "tiny_test.yml", "--set", "val.protcol=rgb"], 1),
}


@pytest.mark.parametrize("arguments, count", COMMANDS.values(), ids=COMMANDS)
def test_command(arguments: list[str], count: int) -> None:
    files = {"tiny.yml": TRAIN, "many.yml": MANY, "tiny_test.yml": TEST}
    for name, text in files.items():
        Path(name).write_text(text)
    result = subprocess.run(
        [sys.executable, "-c", PROBE, *arguments], capture_output=True, text=True, timeout=60
    )
    lines = result.stderr.splitlines()
    assert (result.returncode, result.stdout) == (2, "no torch\n"), result.stderr
    assert len(lines) == count and all(line.startswith("error[OPT") for line in lines), lines
    assert sorted(os.listdir()) == sorted(files)


def test_train_py_exits_with_2() -> None:
    Path("tiny.yml").write_text(changed(TRAIN, "per_gpu: 4", "per_gpu: 0"))
    result = subprocess.run(
        [sys.executable, ROOT / "train.py", "-opt", "tiny.yml"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr == CHANGES["batch: 0"][2] + "\n"
    assert os.listdir() == ["tiny.yml"]


SIX = "network_g={type: MIRNet_v2, inp_channels: 6, task: defocus_deblurring}"


def test_a_network_of_six_channels_needs_its_own_data_set() -> None:
    options = Path(__file__).parents[1] / "options/test_MIRNet_v2_RealDenoising.yml"
    with pytest.raises(OptionError) as caught:
        read_tree(TestTree, str(options), [SIX], check_test)
    assert [p.code for p in caught.value.problems] == ["OPT37"]
    assert "got 1 or 3 channels; expected 6 channels;" in str(caught.value)
    read_tree(
        TestTree, str(options.with_name("test_MIRNet_v2_DefocusDualPixel.yml")), [], check_test
    )


def test_a_gray_set_needs_a_network_of_one_channel() -> None:
    options = Path(__file__).parents[1] / "options/train_MIMOUNet_demo.yml"
    with pytest.raises(OptionError, match="OPT37.*fix: remove 'gray'"):
        read_tree(TrainTree, str(options), ["datasets.train.gray=rgb2gray"], check_train)
    with pytest.raises(OptionError, match="OPT31.*did you mean 'rgb2gray'"):
        read_tree(TrainTree, str(options), ["datasets.train.gray=rgbgray"], check_train)
