"""Pictures of a run where they are looked at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from restore.reports import sinks
from restore.reports.sinks import TensorBoardSink, WandbSink

LEVELS = np.array([[0, 1, 100, 255]], np.uint8)
SIXTEEN = LEVELS.astype(np.uint16) * 257 + np.array([[128, 0, 0, 0]], np.uint16)  # 0.498 of a level
PICTURES = [LEVELS, SIXTEEN, np.dstack([LEVELS] * 3), np.dstack([SIXTEEN] * 3)]


@pytest.mark.parametrize("image", PICTURES, ids=lambda image: f"{image.dtype}-{image.ndim}")
def test_tensorboard_shows_the_levels_of_any_depth(tmp_path: Path, image: np.ndarray) -> None:
    sink = TensorBoardSink(tmp_path, 0)
    sink.image(5, "set/a", image)
    sink.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    (shown,) = events.Images("set/a")
    pixels = cv2.imdecode(np.frombuffer(shown.encoded_image_string, np.uint8), cv2.IMREAD_COLOR)
    assert shown.step == 5 and np.array_equal(pixels, np.dstack([LEVELS] * 3))


def test_wandb_gets_the_levels_of_any_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[dict[str, Any], int]] = []

    class Run:
        def log(self, values: dict[str, Any], step: int) -> None:
            given.append((values, step))

    class Package:
        Image = staticmethod(lambda pixels: pixels)

        @staticmethod
        def init(**_: object) -> Run:
            return Run()

    monkeypatch.setattr(sinks, "find_wandb", lambda _: Package)
    WandbSink("p", "n", None).image(5, "set/a", SIXTEEN)
    ((values, step),) = given
    assert step == 5 and values["set/a"].dtype == np.uint8
    assert np.array_equal(values["set/a"], LEVELS)
