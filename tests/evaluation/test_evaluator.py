"""The evaluator: rows in order whatever the threads do, errors that arrive, and how images were
restored."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from restore.archs.architecture import SizeRule
from restore.data.pair import ImagePair
from restore.data.source import Source
from restore.errors import BackendError, DataError
from restore.evaluation.evaluator import Evaluator, Provenance, Seen, Survey
from restore.evaluation.options import PredictorOptions
from restore.evaluation.predictor import Predictor
from restore.metrics.protocols import PROTOCOLS, Bordered, ScoringRule
from restore.metrics.scores import score
from restore.reports.records import ImageRow
from restore.world import World

COUNT = 7


class Pictures(Source):
    """Seven pairs of different sizes, the earlier ones slower to read; `broken` cannot be read."""

    def __init__(self, broken: int | None = None) -> None:
        self.broken, self.threads = broken, set[int]()

    def __len__(self) -> int:
        return COUNT

    def name(self, index: int) -> str:
        return f"image{index}"

    def __getitem__(self, index: int) -> ImagePair:
        self.threads.add(threading.get_ident())
        time.sleep(0.002 * (COUNT - index))
        if index == self.broken:
            raise DataError.of("DAT99", "broken", self.name(index), "", "", "")
        gt = np.random.default_rng(index).integers(0, 256, (20 + index, 30, 3), dtype=np.uint8)
        return ImagePair(self.name(index), gt // 2, None if index == 3 else gt, 1)


class Double(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * 2


def evaluator(source: Source) -> Evaluator:
    return Evaluator("set", source, [(PROTOCOLS["rgb"], 0)], World())


def rows_of(source: Source, **how: object) -> list[ImageRow]:
    predictor = Predictor(Double(), 1, SizeRule(), options=PredictorOptions(**how))  # pyright: ignore
    return evaluator(source).run(predictor, Provenance("n", "w", "c"))


def test_rows_are_in_order_with_the_scores_of_each_image() -> None:
    source, seen, threads = Pictures(), list[tuple[int, str]](), set[int]()

    def each(index: int, image: Seen) -> None:
        seen.append((index, image.pair.name))
        threads.add(threading.get_ident())

    network = Double()
    predictor = Predictor(network, 1, SizeRule())
    rows = evaluator(source).run(predictor, Provenance("n", "w", "c"), each)
    assert [row.image for row in rows] == [f"image{k}" for k in range(COUNT)]
    assert seen == [(k, f"image{k}") for k in range(COUNT)]
    assert network.calls == COUNT
    here = threading.get_ident()
    assert here not in threads and here not in source.threads and len(threads) == 1
    for index, row in enumerate(rows):
        pair = source[index] if index != 3 else None
        if pair is None or pair.gt is None:
            assert math.isnan(row.psnr) and math.isnan(row.input_ssim)
            continue
        restored = predictor.restore(pair.lq)
        assert (row.psnr, row.ssim) == score(PROTOCOLS["rgb"], restored, pair.gt, 0)
        assert (row.width, row.height) == (30, 20 + index)


def test_an_image_that_cannot_be_read_is_the_readers_error() -> None:
    with pytest.raises(DataError, match="DAT99"):
        rows_of(Pictures(broken=4))


def test_an_error_of_the_callback_ends_the_run() -> None:
    def each(index: int, image: Seen) -> None:
        if index == 2:
            raise DataError.of("IMG13", "disk full", image.pair.name, "", "", "")

    network = Double()
    predictor = Predictor(network, 1, SizeRule())
    with pytest.raises(DataError, match="IMG13"):
        evaluator(Pictures()).run(predictor, Provenance("n", "w", "c"), each)
    assert network.calls < COUNT  # what had not begun was left out


def test_an_error_of_the_network_ends_the_run() -> None:
    class Full(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(BackendError, match="DEV05"):
        evaluator(Pictures()).run(Predictor(Full(), 1, SizeRule()), Provenance("n", "w", "c"))


def test_rows_say_how_images_were_restored() -> None:
    whole = rows_of(Pictures(), precision="bf16", ensemble=4)
    assert {(r.precision, r.ensemble, r.tiling, r.tiles, r.tile, r.overlap) for r in whole} == {
        ("bf16", 4, "whole", 1, 0, 0)
    }
    assert all(math.isnan(row.tile_difference) for row in whole)
    cut = rows_of(Pictures(), tile=20, tile_overlap=6, tile_difference=True)
    assert {row.tiling for row in cut} == {"blend"}
    assert {(row.tiles, row.tile, row.overlap) for row in cut} == {(2, 20, 6), (4, 18, 6)}
    assert all(row.tile_difference == 0 for row in cut)


def test_rows_of_before_tiles_can_be_read() -> None:
    known = rows_of(Pictures())[0].__dict__
    new = ("precision", "ensemble", "tiling", "tiles", "tile", "overlap", "tile_difference")
    old = {key: value for key, value in known.items() if key not in new}
    row = ImageRow(**old)
    assert (row.precision, row.ensemble, row.tiling, row.tiles) == ("fp32", 1, "whole", 1)


def test_an_empty_share_is_no_error() -> None:
    class None_(Pictures):
        def __len__(self) -> int:
            return 0

    assert rows_of(None_()) == []


# Several rules at once


NAMES = {"sr-y": 2, "rgb": 2, "gopro-rgb": 0, "gopro-unrounded": 0, "sidd-val": 0}
SEVERAL = [(PROTOCOLS[name], border) for name, border in NAMES.items()]


class Odd(nn.Module):
    """Gives numbers between the integers, and beyond the range."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * 2.1 - 0.013


def under(rules: list[Bordered], network: nn.Module, **how: object) -> list[ImageRow]:
    predictor = Predictor(network, 1, SizeRule(), options=PredictorOptions(**how))  # pyright: ignore
    further = {"mean": lambda restored, target: float(restored.mean())}
    evaluator = Evaluator("set", Pictures(), rules, World(), further=further)
    return evaluator.run(predictor, Provenance("n", "w", "c"))


@pytest.mark.parametrize("how", [{}, {"ensemble": 4}, {"tile": 20, "tile_overlap": 6}], ids=str)
def test_rows_of_several_rules_are_those_of_each(how: dict[str, object]) -> None:
    network = Odd()
    together = under(SEVERAL, network, **how)
    once, alone = network.calls, list[ImageRow]()
    for rule in SEVERAL:
        network.calls = 0
        alone += under([rule], network, **how)
        assert network.calls == once
    assert [repr(replace(row, seconds=0)) for row in together] == [
        repr(replace(row, seconds=0)) for row in alone
    ]
    psnr = {row.protocol: row.psnr for row in together if row.image == "image0"}
    assert psnr["gopro-rgb@1"] != psnr["gopro-unrounded@1"] == psnr["sidd-val@1"]


def test_rules_of_one_form_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []

    def counted(rule: ScoringRule, *more: Any) -> tuple[float, float]:
        done.append(rule.name)
        return score(rule, *more)

    monkeypatch.setattr("restore.evaluation.scorer.score", counted)
    under(SEVERAL, Odd())
    # one image has no target; each form scores the restored image and the input
    assert len(done) == 4 * 2 * (COUNT - 1) and "sidd-val" not in done


class Small(Pictures):
    """The image of index 4 has a side of 6 pixels: windows of 11 do not fit in."""

    def __getitem__(self, index: int) -> ImagePair:
        pair = super().__getitem__(index)
        if index != 4:
            return pair
        assert pair.gt is not None
        return ImagePair(pair.name, pair.lq[:6], pair.gt[:6], 1)


def test_a_rule_that_refuses_an_image_is_left_out() -> None:
    rules = [(PROTOCOLS[name], 0) for name in ("rgb", "grl-rgb", "denoise-rgb")]
    predictor, where = Predictor(Double(), 1, SizeRule()), Provenance("n", "w", "c")
    survey = Evaluator("set", Small(), rules, World()).survey(predictor, where)
    assert {row.protocol for row in survey.rows} == {"grl-rgb@1"} and len(survey.rows) == COUNT
    assert set(survey.refused) == {"rgb@1", "denoise-rgb@1"}
    assert survey.refused["rgb@1"].startswith("error[DAT12]: image too small for SSIM (image4)")
    with pytest.raises(DataError, match="image4"):
        Evaluator("set", Small(), rules, World()).run(predictor, where)


def test_own_metrics_get_no_image_that_a_rule_refused() -> None:
    """A border of 3 leaves nothing of the image of index 4."""
    sizes: list[int] = []

    def least(restored: np.ndarray, target: np.ndarray) -> float:
        sizes.append(min(restored.size, target.size))
        return float(restored.min())

    rules = [(PROTOCOLS["rgb"], 3), (PROTOCOLS["grl-rgb"], 0)]
    evaluator = Evaluator("set", Small(), rules, World(), further={"least": least})
    survey = evaluator.survey(Predictor(Double(), 1, SizeRule()), Provenance("n", "w", "c"))
    assert list(survey.refused) == ["rgb@1"] and len(survey.rows) == COUNT and min(sizes) > 0


class Ranks:
    """What ranks in threads tell one another."""

    def __init__(self, size: int) -> None:
        self.size, self.given = size, dict[int, Any]()
        self.all_there = threading.Barrier(size)

    def gathered(self, rank: int, own: Any) -> list[Any]:
        self.given[rank] = own
        self.all_there.wait(60)
        everything = [self.given[k] for k in range(self.size)]
        self.all_there.wait(60)
        return everything

    def world(self, rank: int) -> World:
        ranks = self

        class Rank(World):
            def sum(self, values: Tensor) -> Tensor:
                return torch.stack(ranks.gathered(rank, values)).sum(0)

            def gather_bytes(self, own: bytes, most: int) -> list[bytes]:
                assert len(own) <= most
                return ranks.gathered(rank, own)

        return Rank(rank, self.size)


def test_all_ranks_know_what_one_of_them_refused() -> None:
    ranks, rules = Ranks(3), [(PROTOCOLS[name], 0) for name in ("rgb", "grl-rgb")]

    def share(rank: int) -> Survey:
        predictor = Predictor(Double(), 1, SizeRule())
        evaluator = Evaluator("set", Small(), rules, ranks.world(rank))
        return evaluator.survey(predictor, Provenance("n", "w", "c"))

    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(share, range(3)))
    alone = Evaluator("set", Small(), rules, World()).survey(
        Predictor(Double(), 1, SizeRule()), Provenance("n", "w", "c")
    )
    for survey in found:
        assert survey.refused == alone.refused and len(survey.rows) == COUNT
        assert [(r.image, repr(r.psnr)) for r in survey.rows] == [
            (r.image, repr(r.psnr)) for r in alone.rows
        ]
