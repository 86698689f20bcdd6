"""Floor 3. Data sets as an option file names them (no torch here)."""

from __future__ import annotations

from typing import Annotated, Literal

from restore.catalog import Catalog
from restore.section import Count, FileTemplate, Natural, OneOf, Section, UserPath, no_effect


class BicubicDownOptions(Section):
    """LQ by MATLAB's bicubic at the option file's scale."""

    type: Literal["BicubicDown"] = "BicubicDown"


DEGRADATIONS: Catalog[type[Section]] = Catalog("degradation", {"BicubicDown": BicubicDownOptions})
DEGRADATION = OneOf(DEGRADATIONS, lambda section: section)


class DiskOptions(Section):
    """Where images lie: plain files."""

    type: Literal["disk"] = "disk"


class _Common(Section):
    name: str = ""
    """What logs and tables call the set; the key under `datasets` when empty."""
    io_backend: DiskOptions = DiskOptions()
    ram_cache_mib: Natural = 0
    """Decoded images kept in memory, in MiB; filled in the first epoch. 0 keeps none."""


class _Pairs(_Common):
    dataroot_gt: UserPath
    dataroot_lq: UserPath
    filename_tmpl: FileTemplate = "{}"
    """LQ stem from the GT stem: '{}x4' pairs 0001.png with 0001x4.png."""
    meta_info_file: UserPath | None = None
    """A list of the GT files to use, one a line (anything after the first space is ignored)."""


class _Degraded(_Common):
    dataroot_gt: UserPath
    degradation: Annotated[Section, DEGRADATION] = BicubicDownOptions()


class _Training(Section):
    gt_size: Count
    """Side of the square GT crop, in pixels."""
    batch_size_per_gpu: Count
    use_hflip: bool = True
    use_rot: bool = True
    """Vertical flips and quarter turns."""
    num_worker_per_gpu: Natural = 2
    """Threads that decode ahead; 0 decodes in the training loop."""
    use_shuffle: Literal[True] = True
    dataset_enlarge_ratio: float | None = no_effect("the stream of samples has no end to pause at")
    prefetch_mode: str | None = no_effect("batches are always made ahead")
    num_prefetch_queue: int | None = no_effect("batches are always made ahead")
    pin_memory: bool | None = no_effect("memory is pinned when there is a GPU")


class PairedImageDataset(_Pairs):
    """Two folders, LQ and GT, matched by name."""

    type: Literal["PairedImageDataset"] = "PairedImageDataset"


class DegradedImageDataset(_Degraded):
    """One folder of GT; LQ is made from it on the fly."""

    type: Literal["DegradedImageDataset"] = "DegradedImageDataset"


class SingleImageDataset(_Common):
    """One folder of LQ without ground truth: restored, not scored."""

    type: Literal["SingleImageDataset"] = "SingleImageDataset"
    dataroot_lq: UserPath


class PairedImageTraining(PairedImageDataset, _Training):
    """PairedImageDataset to train on."""


class DegradedImageTraining(DegradedImageDataset, _Training):
    """DegradedImageDataset to train on."""


TRAINING_SETS: Catalog[type[Section]] = Catalog(
    "training data set",
    {"PairedImageDataset": PairedImageTraining, "DegradedImageDataset": DegradedImageTraining},
)
EVALUATION_SETS: Catalog[type[Section]] = Catalog(
    "data set",
    {
        "PairedImageDataset": PairedImageDataset,
        "DegradedImageDataset": DegradedImageDataset,
        "SingleImageDataset": SingleImageDataset,
    },
)
TRAINING_SET = OneOf(TRAINING_SETS, lambda section: section)
EVALUATION_SET = OneOf(EVALUATION_SETS, lambda section: section)
