"""A data source: pictures of rectangles that are drawn when they are asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from restore.catalog import locate
from restore.data.options import DEGRADATION, SetOptions, TrainingOptions
from restore.section import Count, Natural, Section

if TYPE_CHECKING:
    from restore.data.source import Source


class Rectangles(SetOptions):
    """What an evaluation set can say. One to train on has the options of training besides."""

    type: Literal["scratches.data:Rectangles"] = "scratches.data:Rectangles"
    count: Count
    first: Natural = 0
    """Number of the first picture: sets that do not overlap have no picture in common."""
    side: Count = 96
    degradation: Annotated[Section, DEGRADATION]

    def open(self, scale: int, *, channels: int, training: bool) -> Source:
        """The `Source`. It needs OpenCV, so it is imported when it is opened and not before."""
        assert channels == 3, "the pictures are RGB"
        return locate("scratches.pictures:rectangles")(self, scale)


class RectanglesTraining(Rectangles, TrainingOptions):
    """Rectangles to train on."""

    type: Literal["scratches.data:RectanglesTraining"] = "scratches.data:RectanglesTraining"  # pyright: ignore
