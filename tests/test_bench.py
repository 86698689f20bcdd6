"""The benchmark matrix: every cell once, the same on any number of ranks, whatever fails."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from restore import images
from restore.archs import build_network
from restore.commands.main import main
from restore.data.fingerprint import FileHashes, fingerprint
from restore.data.sources import open_source
from restore.errors import OptionError, RunError
from restore.evaluation.predictor import Predictor, Restoration
from restore.metrics.protocols import PROTOCOLS
from restore.ops.resize import imresize
from restore.options import read_document, read_options
from restore.options_yaml import dump
from restore.recipes import bench
from restore.recipes.bench_trees import BenchTree, check_bench
from restore.recipes.reproduce import Verdict, matrix_of, verdicts
from restore.recipes.trees import TestTree
from restore.reports.published.table import published_as
from restore.reports.records import read_rows
from restore.world import World

ROOT = Path(__file__).resolve().parent.parent
NETWORK = {"type": "SPAN", "feature_channels": 8, "upscale": 2}


def picture(seed: int, side: int = 32) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rough = rng.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
    return imresize(rough, 4)


def paired(folder: Path, count: int, seed: int) -> None:
    for kind in ("HR", "LR"):
        (folder / kind).mkdir(parents=True)
    for k in range(count):
        image = picture(seed + k)
        images.write(folder / f"HR/{k}.png", image)
        images.write(folder / f"LR/{k}.png", imresize(image, 0.5))


def data(name: str, folder: Path) -> dict[str, Any]:
    roots = {f"dataroot_{key}": str(folder / kind) for key, kind in (("gt", "HR"), ("lq", "LR"))}
    return {"name": name, "type": "PairedImageDataset", **roots}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets and the weights of two networks."""
    folder = tmp_path_factory.mktemp("made")
    paired(folder / "A", 3, seed=0)
    paired(folder / "B", 2, seed=10)
    for name, seed in (("one", 1), ("two", 2)):
        torch.manual_seed(seed)
        torch.save({"params": build_network(NETWORK).state_dict()}, folder / f"{name}.pth")
    return folder


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder of its own."""
    shutil.copytree(made, tmp_path / "user")
    monkeypatch.chdir(tmp_path / "user")
    return tmp_path / "user"


def matrix(place: Path) -> dict[str, Any]:
    return {
        "name": "matrix",
        "scale": 2,
        "num_gpu": 0,
        "num_threads": 1,
        "networks": {
            name: {"network_g": NETWORK, "weights": str(place / f"{name}.pth")}
            for name in ("one", "two")
        },
        "datasets": {"test_1": data("A", place / "A"), "test_2": data("B", place / "B")},
        "variants": {"whole": {}, "x4": {"ensemble": 4}},
    }


def write(values: dict[str, Any], name: str = "bench.yml") -> str:
    Path(name).write_text(dump(values))
    return name


def run(values: dict[str, Any], expected: int = 0) -> None:
    assert main(["bench", "-opt", write(values)]) == expected


def cells(place: Path) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in (place / "experiments/matrix/cells").glob("*.jsonl")}


def refuse_to_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    def no(*_: object) -> None:
        raise AssertionError("a cell was computed again")

    monkeypatch.setattr(bench, "_score", no)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cells that are computed from now on."""
    done: list[str] = []
    before = bench._score

    def score(missing: Sequence[bench.Planned], *more: Any) -> dict[str, Any]:
        done.extend(str(planned.cell) for planned in missing)
        return before(missing, *more)

    monkeypatch.setattr(bench, "_score", score)
    return done


def test_a_matrix_leaves_rows_tables_and_page(place: Path, capsys) -> None:
    run(matrix(place) | {"protocols": ["sr-y", "rgb"]})
    out = capsys.readouterr().out
    folder = place / "experiments/matrix"
    assert len(cells(place)) == 16 and not list((folder / "cells").glob(".*"))
    names = {f.name for f in (folder / "results").iterdir()}
    assert names == {"one_whole", "one_x4", "two_whole", "two_x4"}
    rows = read_rows(folder / "results/one_whole/rows.jsonl")
    assert len(rows) == 2 * (3 + 2) and {r.network for r in rows} == {"one, whole"}
    summary = json.loads((folder / "results/one_whole/summary.json").read_text())
    assert set(summary["sets"]) == {f"{s}, {p}" for s in "AB" for p in ("sr-y@1", "rgb@1")}
    html = (folder / "report/index.html").read_text()
    assert "two, x4" in html and "http" + "://" not in html
    pictures = list((folder / "report/images").rglob("*.png"))
    assert len(pictures) == 5 * 3 + 4 * 5  # lq, baseline, gt once; four networks' images
    for line in ("bicubic", "one, whole", "two, x4"):
        assert line in out and line in (folder / "report/tables.md").read_text()


def test_a_cell_says_what_a_test_says(place: Path) -> None:
    run(matrix(place) | {"protocols": ["rgb"]})
    test = {
        key: value for key, value in matrix(place).items()
        if key not in ("networks", "protocols", "variants")
    } | {
        "name": "test", "network_g": NETWORK, "val": {"protocol": "rgb", "ensemble": 4},
        "path": {"pretrain_network_g": str(place / "two.pth")},
    }  # fmt: skip
    assert main(["test", "-opt", write(test, "test.yml")]) == 0
    theirs = read_rows(place / "experiments/test/results/rows.jsonl")
    ours = read_rows(place / "experiments/matrix/results/two_x4/rows.jsonl")
    assert {r.protocol for r in ours} == {r.protocol for r in theirs}
    digits, wanted = ({(r.set, r.image): (r.psnr, r.ssim) for r in rows} for rows in (ours, theirs))
    assert digits == wanted


def test_nothing_is_computed_twice(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(matrix(place))
    before, page = cells(place), (place / "experiments/matrix/report/index.html").read_text()
    with monkeypatch.context() as patch:
        refuse_to_compute(patch)
        run(matrix(place))
        for file in (place / "A/HR").iterdir():
            os.utime(file, (1, 1))  # touched, not changed
        run(matrix(place))
        renamed = matrix(place)
        renamed["networks"] = {"uno": renamed["networks"]["one"]}
        shutil.move(place / "A", place / "moved")
        renamed["datasets"] = {"test_9": data("Alpha", place / "moved")}
        run(renamed)
        rows = read_rows(place / "experiments/matrix/results/uno_whole/rows.jsonl")
        assert {(r.network, r.set) for r in rows} == {("uno, whole", "Alpha")}
        shutil.move(place / "moved", place / "A")
        run(matrix(place))
    assert cells(place) == before
    assert (place / "experiments/matrix/report/index.html").read_text() == page


def other_weights(values: dict[str, Any], place: Path) -> None:
    shutil.copy(place / "two.pth", place / "one.pth")


def other_image(values: dict[str, Any], place: Path) -> None:
    images.write(place / "A/LR/1.png", imresize(picture(99), 0.5))


def one_image_less(values: dict[str, Any], place: Path) -> None:
    (place / "B/LR/1.png").unlink()
    (place / "B/HR/1.png").unlink()


def other_border(values: dict[str, Any], place: Path) -> None:
    values["val"] = {"crop_border": 3}


def other_variant(values: dict[str, Any], place: Path) -> None:
    values["variants"]["x4"] = {"ensemble": 8}


@pytest.mark.parametrize(
    ("change", "anew"),
    [(other_weights, 0), (other_image, 4), (one_image_less, 4), (other_border, 8),
     (other_variant, 4)],
)  # fmt: skip
def test_what_moves_a_digit_is_computed_again(
    place: Path, monkeypatch, change: Callable[..., None], anew: int
) -> None:
    values = matrix(place)
    run(values)
    done = counted(monkeypatch)
    change(values, place)
    run(values)
    assert len(done) == anew  # weights that another network had are known already


def test_a_new_network_alone_is_computed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = matrix(place)
    two = values["networks"].pop("two")
    run(values)
    done = counted(monkeypatch)
    values["networks"]["two"] = two
    run(values)
    assert len(done) == 4 and all(cell.startswith("two") for cell in done)


def test_an_interrupted_matrix_continues(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = bench._score
    with monkeypatch.context() as patch:

        def score(missing: Sequence[bench.Planned], *more: Any) -> dict[str, Any]:
            if len(cells(place)) == 5:
                raise KeyboardInterrupt
            return before(missing, *more)

        patch.setattr(bench, "_score", score)
        assert main(["bench", "-opt", write(matrix(place))]) == 130
    assert len(cells(place)) == 5
    done = counted(monkeypatch)
    run(matrix(place))
    assert len(done) == 3 and len(cells(place)) == 8


@pytest.mark.parametrize(
    "suffix, held",
    [(".json", b""), (".json", b'{"images": 2}'), (".jsonl", b""), (".jsonl", b"\0" * 20)],
)
def test_a_damaged_cell_is_computed_again(
    place: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, held: bytes
) -> None:
    values = matrix(place)
    values["networks"].pop("two")
    run(values)
    before = cells(place)
    folder = place / "experiments/matrix/cells"
    file = next(f for f in sorted(folder.glob(f"*{suffix}")) if f.name != "plan.json")
    file.write_bytes(held)
    done = counted(monkeypatch)
    run(values)
    assert len(done) == 1 and cells(place).keys() == before.keys()
    assert cells(place)[f"{file.stem}.jsonl"].count(b"\n") == before[f"{file.stem}.jsonl"].count(
        b"\n"
    )


def test_a_damaged_plan_is_made_anew(place: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    run(matrix(place))
    plan = place / "experiments/matrix/cells/plan.json"
    written = plan.read_bytes()
    plan.write_bytes(b"[{")
    refuse_to_compute(monkeypatch)
    run(matrix(place))
    assert plan.read_bytes() == written
    tree, _ = read_options(BenchTree, write(matrix(place)))
    for damaged in (b"[{", b"[]", b'{"key": 1}', b"\xff"):
        plan.write_bytes(damaged)  # after this run has written it, by another of the same name
        with pytest.raises(RunError, match=r"error\[RUN05\].*one restore bench at a time"):
            bench.run_matrix(tree, World(rank=1))


def broken_image(values: dict[str, Any], place: Path) -> None:
    file = place / "A/LR/2.png"
    file.write_bytes(file.read_bytes()[:-40])


def broken_weights(values: dict[str, Any], place: Path) -> None:
    (place / "one.pth").write_bytes(b"no weights")


def no_weights(values: dict[str, Any], place: Path) -> None:
    (place / "one.pth").unlink()


def no_set(values: dict[str, Any], place: Path) -> None:
    values["datasets"]["test_1"]["dataroot_gt"] = "nowhere"


@pytest.mark.parametrize(
    ("breaking", "code", "lost"),
    [(broken_image, "IMG", 4), (broken_weights, "WGT", 4), (no_weights, "WGT05", 4),
     (no_set, "DAT02", 4)],
)  # fmt: skip
def test_a_cell_that_fails_leaves_the_others(
    place: Path, capsys, breaking: Callable[..., None], code: str, lost: int
) -> None:
    values = matrix(place)
    breaking(values, place)
    run(values, expected=1)
    said = capsys.readouterr().err
    assert said.count("not computed: ") == lost and f"error[{code}" in said
    assert "Traceback" not in said and len(cells(place)) == 8 - lost
    html = (place / "experiments/matrix/report/index.html").read_text()
    assert html.count(f"error[{code}") == lost


def test_a_fault_of_the_program_is_a_failed_cell(place: Path, monkeypatch, capsys) -> None:
    def out_of_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory left")

    monkeypatch.setattr("restore.evaluation.evaluator.Evaluator.survey", out_of_memory)
    run(matrix(place), expected=1)
    assert "OutOfMemoryError: no memory left" in capsys.readouterr().err


def launched(file: str, place: Path, ranks: int) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    words += [f"--nproc-per-node={ranks}", "-m", "restore.commands", "bench", "-opt", file]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*words, "--launcher", "pytorch"], cwd=place, env=environment, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip


def test_two_ranks_give_the_digits_of_one(place: Path) -> None:
    values = matrix(place)
    values["variants"] = {"x4": {"ensemble": 4}}
    values["protocols"] = ["sr-y", "gopro-unrounded"]
    file = place / "A/LR/2.png"  # seen by the first rank alone
    whole = file.read_bytes()
    file.write_bytes(whole[:-40])
    done = launched(write(values), place, 2)
    assert done.stderr.count("not computed: ") == 4, done.stderr  # and nobody waits for ever
    file.write_bytes(whole)
    done = launched(write(values), place, 2)
    assert done.returncode == 0, done.stderr
    ranks = cells(place)
    shutil.rmtree(place / "experiments")
    run(values)
    alone = cells(place)
    assert set(ranks) == set(alone) and len(alone) == 8

    def digits(rows: bytes) -> list[dict[str, Any]]:
        return [json.loads(line) | {"seconds": 0} for line in rows.splitlines()]

    assert all(digits(ranks[key]) == digits(alone[key]) for key in alone)


def test_a_set_is_known_by_what_it_holds(place: Path, tmp_path: Path) -> None:
    values = matrix(place)["datasets"]["test_1"]
    hashes = FileHashes(tmp_path / "hashes.json")

    def of(**more: Any) -> str:
        tree = matrix(place)
        tree["datasets"] = {"test_1": values | more}
        file = write(tree, "known.yml")
        options = read_options(BenchTree, file)[0].datasets.evaluated()["test_1"]
        source = open_source(options, 2, channels=3, training=False)
        return fingerprint(source, options, hashes)

    first = of()
    assert of(name="other") == first
    hashes.save()
    assert len(json.loads((tmp_path / "hashes.json").read_text())) == 6
    (place / "A/LR/0.png").rename(place / "A/LR/7.png")
    (place / "A/HR/0.png").rename(place / "A/HR/7.png")
    assert of() != first  # the same images in another order
    (tmp_path / "hashes.json").write_text("not json")
    assert FileHashes(tmp_path / "hashes.json").of(place / "A/HR/1.png") == hashes.of(
        place / "A/HR/1.png"
    )


REFUSED: list[tuple[str, Any, str]] = [
    ("networks", {}, "OPT12"),
    ("datasets", {}, "OPT12"),
    ("networks.one.network_g", None, "OPT35"),
    ("networks.one.preset", "SPAN_x2", "OPT35"),
    ("networks.one", {"preset": "SPAM_x2", "weights": "w"}, "OPT24"),
    ("networks.one", {"preset": "SPAN_x4", "weights": "w"}, "OPT33"),
    ("networks.one", {"network_g": NETWORK}, "OPT12"),
    ("networks.one.wieghts", "w", "OPT11"),
    ("variants.x4.ensembel", 4, "OPT11"),
    ("variants.x4.ensemble", 3, "OPT31"),
    ("variants.x4.protocol", "rgb", "OPT35"),
    ("variants.x4.crop_border", 1, "OPT35"),
    ("protocols", ["sr_y"], "OPT31"),
    ("published", ["SPAN/SPAN/SRx5"], "OPT24"),
    ("datasets.test_2.name", "A", "OPT44"),
    ("name", "a/b", "OPT20"),
]


@pytest.mark.parametrize("path, value, code", REFUSED, ids=[f"{p}={v}" for p, v, _ in REFUSED])
def test_wrong_matrices_are_refused(path: str, value: Any, code: str, place: Path, capsys) -> None:
    values = json.loads(json.dumps(matrix(place)))
    *parents, key = path.split(".")
    at = values
    for parent in parents:
        at = at[parent]
    at[key] = value
    assert main(["bench", "-opt", write(values)]) == 2
    assert f"error[{code}]" in capsys.readouterr().err and not Path("experiments").exists()


def test_presets_and_variants_become_tests(place: Path) -> None:
    values = matrix(place)
    values["networks"] = {"SPAN": {"preset": "SPAN_x2", "weights": "w.pth"}}
    values["val"] = {"ensemble": 8, "report_images": 3}
    tree, document = read_options(BenchTree, write(values))
    assert check_bench(tree, document) == []
    found = list(tree.cells())
    assert len(found) == 2 * 2
    assert {c.tree.val.ensemble for c in found if c.variant == "whole"} == {8}
    assert {c.tree.val.ensemble for c in found if c.variant == "x4"} == {4}
    assert {c.tree.val.report_images for c in found} == {3}
    assert {getattr(c.tree.network_g, "feature_channels", 0) for c in found} == {52}


# ---- one restoration, several protocols ----


def forwards(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that are restored from now on."""
    done: list[str] = []
    before = Predictor.run

    def counting(self: Predictor, image: np.ndarray, *, unrounded: bool = False) -> Restoration:
        done.append(hashlib.sha256(image.tobytes()).hexdigest())
        return before(self, image, unrounded=unrounded)

    monkeypatch.setattr(Predictor, "run", counting)
    return done


SEVERAL = ["sr-y", "rgb", "gopro-unrounded"]


def by_key(place: Path) -> dict[str, list[dict[str, Any]]]:
    """Every cell's rows, time aside."""
    found = {name: text.splitlines() for name, text in cells(place).items()}
    return {
        name: [json.loads(line) | {"seconds": 0} for line in lines] for name, lines in found.items()
    }


def test_an_image_is_restored_once_for_all_protocols(place: Path, monkeypatch) -> None:
    """The digits are those of runs of one protocol each; some cells there, the rest follow."""
    values = matrix(place)
    for protocol in SEVERAL:
        run(values | {"protocols": [protocol]})
    alone = by_key(place)
    assert len(alone) == 8 * len(SEVERAL)
    shutil.rmtree(place / "experiments")
    done = forwards(monkeypatch)
    run(values | {"protocols": ["rgb"]})
    assert len(done) == 2 * 2 * (3 + 2)  # networks, variants, images
    run(values | {"protocols": SEVERAL})
    assert len(done) == 2 * 2 * 2 * (3 + 2)
    run(values | {"protocols": SEVERAL})
    assert len(done) == 2 * 2 * 2 * (3 + 2)
    together = by_key(place)
    assert set(together) == set(alone)
    assert all(together[key] == alone[key] for key in alone)
    shown = place / "experiments/matrix/cells"
    for key in alone:  # every cell has its pictures, whichever protocol a page shows first
        assert list((shown / key.removesuffix(".jsonl")).glob("*_restored.png"))


def test_all_protocols_that_fit(place: Path, capsys) -> None:
    """One that does not fit a set is left out and said, and no failure; nothing is done twice."""
    values = matrix(place) | {"protocols": "all", "variants": {}}
    flat = np.full((32, 32, 3), 90, np.uint8)  # has nothing to align
    images.write(place / "B/HR/0.png", flat)
    images.write(place / "B/LR/0.png", imresize(flat, 0.5))
    run(values)
    captured = capsys.readouterr()
    left_out = [line for line in captured.out.splitlines() if line.startswith("left out: ")]
    assert all("realblur-rgb: error[DAT30]" in line for line in left_out)
    for name in ("one", "two"):
        assert any(line.startswith(f"left out: {name} on B,") for line in left_out)
    assert "not computed" not in captured.err
    assert "the same images" in captured.out
    rows = read_rows(place / "experiments/matrix/results/one/rows.jsonl")
    stamps = {rule.stamp for rule in PROTOCOLS.values()}
    assert stamps - {r.protocol for r in rows if r.set == "A"} <= {"realblur-rgb@1"}
    assert {r.protocol for r in rows if r.set == "B"} == stamps - {"realblur-rgb@1"}
    html = (place / "experiments/matrix/report/index.html").read_text()
    assert "Protocols left out" in html and all(stamp in html for stamp in stamps)
    assert len(cells(place)) == 2 * 2 * len(PROTOCOLS)
    with pytest.MonkeyPatch.context() as patch:
        refuse_to_compute(patch)
        run(values)
    assert capsys.readouterr().out.count("left out: ") == len(left_out)
    run(values | {"protocols": ["rgb", "realblur-rgb"]}, expected=1)  # named, and does not fit
    assert capsys.readouterr().err.count("not computed: ") == len(left_out)


def test_the_protocols_of_val_are_the_matrix(place: Path) -> None:
    run(matrix(place) | {"val": {"protocol": ["rgb", "sr-y"]}, "variants": {}})
    rows = read_rows(place / "experiments/matrix/results/one/rows.jsonl")
    assert list(dict.fromkeys(r.protocol for r in rows)) == ["rgb@1", "sr-y@1"]


# ---- compare ----


def results(place: Path, name: str) -> str:
    return str(place / "experiments/matrix/results" / name)


def test_two_results_are_compared(place: Path, capsys) -> None:
    run(matrix(place))
    capsys.readouterr()
    assert main(["compare", results(place, "one_whole"), results(place, "two_whole")]) == 0
    out = capsys.readouterr().out
    assert "A wins" in out and "A less B where A does worst" in out
    words = [results(place, "one_whole"), results(place, "two_whole"), "--json", "--worst", "1"]
    assert main(["compare", *words]) == 0
    found = json.loads(capsys.readouterr().out)["differences"]
    assert len(found) == 2 * 2 and all(len(d["worst"]) == 1 for d in found)
    a, b = (read_rows(Path(w) / "rows.jsonl") for w in words[:2])
    rule = a[0].protocol
    gaps = [
        x.psnr - y.psnr for x, y in zip(a, b, strict=True) if (x.set, x.protocol) == ("A", rule)
    ]
    (ours,) = [d for d in found if (d["set"], d["protocol"], d["measure"]) == ("A", rule, "psnr")]
    assert ours["mean"] == pytest.approx(np.mean(gaps)) and ours["images"] == len(gaps) == 3


def test_results_that_cannot_be_compared(place: Path, capsys) -> None:
    run(matrix(place))
    whole = results(place, "one_whole")
    assert main(["compare", str(place / "experiments/matrix"), whole]) == 2
    assert "results of one_whole, one_x4" in capsys.readouterr().err
    other = place / "other"
    other.mkdir()
    rows = [replace(r, set="C") for r in read_rows(Path(whole) / "rows.jsonl")]
    (other / "rows.jsonl").write_text("".join(json.dumps(vars(r)) + "\n" for r in rows))
    assert main(["compare", whole, str(other)]) == 2
    assert "error[DAT29]: nothing to compare" in capsys.readouterr().err
    (other / "rows.jsonl").write_text('{"set": 1}\n')
    assert main(["compare", whole, str(other)]) == 2
    assert "error[DAT28]" in capsys.readouterr().err


# ---- reproduce ----


def test_a_figure_is_reproduced_within_the_tolerance() -> None:
    assert Verdict("Set5", "psnr", 32.20, 32.21).holds  # 0.01 is not 0.01 in binary
    assert not Verdict("Set5", "psnr", 32.20, 32.2101).holds
    assert Verdict("Set5", "ssim", 0.8953, 0.8958).said == "reproduced"
    assert Verdict("Set5", "ssim", 0.8953, 0.8960).said == "differs"
    assert not Verdict("Set5", "ssim", 0.8953, None).holds


@pytest.fixture
def published_test(place: Path) -> str:
    """A test file with Set14 and Urban100 at ×4, and weights for it."""
    for name, seed in (("Set14", 0), ("Urban100", 5)):
        paired(place / name, 2, seed)
        for file in (place / name / "LR").iterdir():
            images.write(file, imresize(images.read(place / name / "HR" / file.name), 0.25))
    network = NETWORK | {"upscale": 4}
    torch.manual_seed(3)
    torch.save({"params": build_network(network).state_dict()}, place / "x4.pth")
    values = {
        "name": "t", "scale": 4, "num_gpu": 0, "num_threads": 1, "network_g": network,
        "datasets": {f"test_{k}": data(n, place / n) for k, n in enumerate(("Set14", "Urban100"))},
    }  # fmt: skip
    return write(values, "t.yml")


def test_published_figures_are_set_beside_ours(published_test: str, capsys) -> None:
    words = ["reproduce", "span/span/srx4", "--weights", "x4.pth", "--opt", published_test]
    assert main(words) == 1
    out = capsys.readouterr().out
    assert out.count("differs") == 3 and "26.180" not in out and "26.18" in out
    assert "Urban100" in out and "within 0.01 dB, 0.0005 SSIM" in out
    assert Path("experiments/reproduce_SPAN_SPAN_SRx4/report/index.html").exists()
    assert main([*words, "--sets", "Set14"]) == 1
    assert "Urban100" not in capsys.readouterr().out.replace("(Urban100)", "")
    shutil.rmtree("Set14")
    assert main(words) == 1
    captured = capsys.readouterr()
    assert "not measured" in captured.out and "error[DAT02]" in captured.err


def test_a_network_that_reaches_its_figures_reproduces(
    published_test: str, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    words = ["reproduce", "SPAN/SPAN/SRx4", "--weights", "x4.pth", "--opt", published_test]
    assert main(words) == 1
    rows = read_rows(Path("experiments/reproduce_SPAN_SPAN_SRx4/results/SPAN/rows.jsonl"))
    ours = float(np.mean([r.psnr for r in rows if r.set == "Set14"]))
    (row,) = [r for r in published_as("SPAN/SPAN/SRx4") if "Set14" in r.figures]
    figures = row.figures["Set14"].model_copy(update={"psnr": round(ours, 2)})
    reached = row.model_copy(update={"figures": {"Set14": figures}})
    monkeypatch.setattr("restore.commands.reproduce.published_as", lambda name: (reached,))
    assert main(words) == 0 and "reproduced" in capsys.readouterr().out


def test_every_row_with_a_test_file_becomes_a_matrix() -> None:
    names = dict.fromkeys(r.name for r in published_as("MaIR/MaIR+/SRx4"))
    for name in names:
        rows = published_as(name)
        file = ROOT / "options" / str(rows[0].options)
        tree = matrix_of(read_options(TestTree, file)[0], rows, "w.pth", None)
        assert [c.set for c in tree.cells()] == ["Set5", "Urban100", "Manga109"]
        assert {c.tree.val.ensemble for c in tree.cells()} == {8}
        assert check_bench(tree, read_document(file)) == []
        assert verdicts(rows, [], None)[0].measured is None


@pytest.mark.parametrize(
    "words, code",
    [
        (["SPAN/SPAN/SRx5", "--weights", "w"], "OPT24"),
        (["SPAN/SPAN/SRx4"], "OPT40"),
        (["SPAN/SPAN/SRx4", "--weights", "w"], "WGT05"),
        (["SPAN/SPAN/SRx4", "--weights", "w", "--sets", "Set6"], "OPT45"),
        (["MAXIM/MAXIM/GoPro", "--weights", "w"], "OPT24"),
        (["PLKSR/PLKSR-tiny/SRx4", "--weights", "w"], "OPT01"),
    ],
)
def test_what_cannot_be_reproduced(words: list[str], code: str, place: Path, capsys) -> None:
    assert main(["reproduce", *words]) == 2
    assert f"error[{code}]" in capsys.readouterr().err and not Path("experiments").exists()


def test_reproducible_rows_are_listed(capsys) -> None:
    assert main(["reproduce", "--list"]) == 0
    out = capsys.readouterr().out
    assert "SPAN/SPAN/SRx4  (Set14, Urban100)" in out and "SwinIR" not in out


def test_check_counts_the_cells(place: Path, capsys) -> None:
    assert main(["check", write(matrix(place))]) == 0
    assert "bench ×2, 8 cells" in capsys.readouterr().out
    with pytest.raises(OptionError):
        read_options(BenchTree, "bench.yml", ["networks.one.weights=~"])
