"""Floor 3. Data sets as an option file names them (no torch here)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from restore.catalog import Catalog
from restore.data.stages import Stages
from restore.section import (
    Count,
    FileTemplate,
    Natural,
    NotNegative,
    OneOf,
    Section,
    UserPath,
    mistake,
    no_effect,
)


def _ascending(bounds: tuple[float, float]) -> tuple[float, float]:
    if bounds[0] > bounds[1]:
        raise mistake("OPT18", "a range runs backwards", "[low, high]", "swap the two numbers")
    return bounds


Positive = Annotated[float, Field(gt=0)]
Unit = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[tuple[NotNegative, NotNegative], AfterValidator(_ascending)]
PositiveRange = Annotated[tuple[Positive, Positive], AfterValidator(_ascending)]
Quality = Annotated[int, Field(ge=1, le=100)]
QualityRange = Annotated[tuple[Quality, Quality], AfterValidator(_ascending)]
UnitRange = Annotated[tuple[Unit, Unit], AfterValidator(_ascending)]


class BicubicDownOptions(Section):
    """LQ by MATLAB's bicubic at the option file's scale."""

    type: Literal["BicubicDown"] = "BicubicDown"


class MotionBlurOptions(Section):
    """LQ blurred by a shaking camera: the mean of many shifted and turned copies, as in GoPro."""

    type: Literal["MotionBlur"] = "MotionBlur"
    path_length: Range = (8.0, 20.0)
    """Length of the camera's path in pixels of an image whose long side is 640; grows with it."""
    rotation: Range = (0.0, 0.5)
    """Largest turn about the image's centre, in degrees, to either side."""
    subframes: Annotated[int, Field(ge=2, le=1000)] = 33
    """Copies averaged; more where they would lie over 0.7 pixels apart."""
    gamma: Positive = 1.0
    """1: averaged as stored (GoPro `blur`); 2.2: in linear light (GoPro `blur_gamma`)."""


class SensorNoiseOptions(Section):
    """LQ with a camera's noise: raw Poisson-Gaussian noise, demosaicked and developed, as in
    SIDD."""

    type: Literal["SensorNoise"] = "SensorNoise"
    shot: PositiveRange = (0.006, 0.03)
    """a of the raw variance a·x + b, x in [0, 1]; drawn log-uniformly. b follows from it."""
    read_spread: NotNegative = 0.26
    """Standard deviation of ln b about 2.18·ln a + 1.20."""
    red_gain: PositiveRange = (1.9, 2.4)
    """White balance of red over green."""
    blue_gain: PositiveRange = (1.5, 1.9)
    """White balance of blue over green."""
    chroma_sigma: NotNegative = 1.5
    """Smoothing of the noise's colour, in pixels, as cameras do it; 0 for none."""


class HazeOptions(Section):
    """LQ seen through haze: I = J·t + A·(1 - t), t = exp(-beta·depth), as in RESIDE."""

    type: Literal["Haze"] = "Haze"
    scene: Literal["indoor", "outdoor"] = "outdoor"
    """Made-up depth: a slanted plane, or a ground that runs to a horizon under a far sky."""
    beta: Range | None = None
    """Scattering over the largest depth; 0.6 to 1.8 indoors, 0.2 to 1.0 outdoors if left out."""
    airlight: UnitRange | None = None
    """A, of the white that haze tends to; 0.7 to 1 indoors, 0.8 to 1 outdoors when left out."""


class GaussianNoiseOptions(Section):
    """LQ with white Gaussian noise, clipped and rounded to the image's integers."""

    type: Literal["GaussianNoise"] = "GaussianNoise"
    sigma: NotNegative | Range
    """Standard deviation on the scale 0 to 255: a number, or [low, high] drawn uniformly."""


class JpegOptions(Section):
    """LQ compressed as baseline JPEG with 4:2:0 chroma, on 8 bits; gray images as gray."""

    type: Literal["JPEG"] = "JPEG"
    quality: Quality | QualityRange
    """libjpeg's quality, 1 to 100: a number, or [low, high] drawn uniformly, both ends included."""


class BayerMosaicOptions(Section):
    """LQ as a Bayer sensor sees it, demosaicked linearly (Malvar, He and Cutler, ICASSP 2004)."""

    type: Literal["BayerMosaic"] = "BayerMosaic"
    pattern: Literal["RGGB", "GRBG", "GBRG", "BGGR"] = "RGGB"
    """Colours of the top left 2×2 pixels, row by row."""


DEGRADATIONS: Catalog[type[Section]] = Catalog(
    "degradation",
    {
        "BicubicDown": BicubicDownOptions,
        "MotionBlur": MotionBlurOptions,
        "SensorNoise": SensorNoiseOptions,
        "Haze": HazeOptions,
        "GaussianNoise": GaussianNoiseOptions,
        "JPEG": JpegOptions,
        "BayerMosaic": BayerMosaicOptions,
    },
)
DEGRADATION = OneOf(DEGRADATIONS, lambda section: section)


class DiskOptions(Section):
    """The dataroots are folders of image files."""

    type: Literal["disk"] = "disk"


class LmdbOptions(Section):
    """The dataroots are LMDB folders of BasicSR's layout, with meta_info.txt."""

    type: Literal["lmdb"] = "lmdb"


class SubImageOptions(Section):
    """Each image stands for its overlapping sub-images, as BasicSR's extract_subimages.py cuts
    them, but without a copy: the last of a row or column is flush with the border."""

    crop_size: Count = 480
    """Side of a sub-image, in pixels of GT."""
    step: Count = 240
    """Distance between neighbours, in pixels of GT."""


class PackOptions(Section):
    """The dataroots are packs of decoded images, made by `restore prepare pack`."""

    type: Literal["pack"] = "pack"
    sub_images: SubImageOptions | None = None
    """An epoch of sub-images instead of images."""


class ShardOptions(Section):
    """The dataroots are shards made by `restore prepare shards`, in a folder or below an http(s)
    address."""

    type: Literal["shards"] = "shards"
    attempts: Count = 6
    """How often an HTTP request is tried."""
    timeout: Positive = 30.0
    """Seconds until a silent server counts as failed."""


BACKENDS: Catalog[type[Section]] = Catalog(
    "io_backend",
    {"disk": DiskOptions, "lmdb": LmdbOptions, "pack": PackOptions, "shards": ShardOptions},
)
BACKEND = OneOf(BACKENDS, lambda section: section)


class SetOptions(Section):
    """What every data set takes. One of your own inherits this and has
    `open(self, scale, *, channels, training)`, giving a `restore.data.source.Source`."""

    name: str = ""
    """What logs and tables call the set; the key under `datasets` when empty."""


class _Common(SetOptions):
    io_backend: Annotated[Section, BACKEND] = DiskOptions()
    """What the images lie in: `type: disk` (the default), `lmdb`, `pack` or `shards`."""
    ram_cache_mib: Natural = 0
    """Decoded images kept in memory, in MiB; filled in the first epoch. 0 keeps none."""


class _Pairs(_Common):
    dataroot_gt: UserPath
    dataroot_lq: UserPath
    filename_tmpl: FileTemplate = "{}"
    """LQ stem from the GT stem: '{}x4' pairs 0001.png with 0001x4.png."""
    meta_info_file: UserPath | None = None
    """A list of the GT files to use, one a line (anything after the first space is ignored)."""
    pairing: Literal["template", "gopro", "sidd", "reside"] = "template"
    """How names pair: `template` by filename_tmpl; `gopro` SEQ/blur/x.png with SEQ/sharp/x.png;
    `sidd` SCENE/…_NOISY_SRGB_… with SCENE/…_GT_SRGB_…; `reside` each id_….png with id.png.
    For `gopro` and `sidd` dataroot_gt and dataroot_lq may be the same folder."""

    @field_validator("pairing")
    @classmethod
    def _one_rule(cls, pairing: str, before: ValidationInfo) -> str:
        if pairing != "template" and before.data.get("filename_tmpl", "{}") != "{}":
            raise mistake(
                "OPT35",
                "pairing and filename_tmpl are both given",
                "one of them",
                "remove filename_tmpl; this pairing has its own names",
            )
        return pairing


class _Degraded(_Common):
    dataroot_gt: UserPath
    degradation: Annotated[Section, DEGRADATION] = BicubicDownOptions()
    gray: Literal["rgb2gray", "rgb2ycbcr"] | None = None
    """Make colour GT gray before it is degraded: `rgb2gray` by .299, .587, .114 over the full
    range, `rgb2ycbcr` by MATLAB's rounded Y, 16 to 235. Images stay as they are when left out."""


class TrainingOptions(Section):
    """What a data set to train on takes beside its own options."""

    gt_size: Count
    """Side of the square GT crop, in pixels; with `gt_sizes`, of none larger."""
    batch_size_per_gpu: Count
    iters: tuple[Count, ...] | None = None
    """Progressive learning: the steps of each stage; the last stage goes on to the end."""
    gt_sizes: tuple[Count, ...] | None = None
    """Progressive learning: the GT crop of each stage."""
    mini_batch_sizes: tuple[Count, ...] | None = None
    """Progressive learning: the batch of each stage, per GPU."""
    use_hflip: bool = True
    use_rot: bool = True
    """Vertical flips and quarter turns."""
    pad_small: bool = False
    """Extend images smaller than the patch with black below and to the right, as GRL does, instead
    of refusing them."""
    num_worker_per_gpu: Natural = 2
    """Threads, or processes, that make batches ahead; 0 makes them in the training loop."""
    worker_type: Literal["threads", "processes"] = "threads"
    """Processes instead of threads pay for themselves only where LQ is made by a degradation that
    takes tens of milliseconds."""
    on_bad: Literal["raise", "skip"] = "raise"
    """What an image that cannot be used does: end the run, or be left out with a line in the log,
    the next one in its place; at most a thousandth of the set (and one image)."""
    use_shuffle: Literal[True] = True
    dataset_enlarge_ratio: float | None = no_effect("the stream of samples has no end to pause at")
    prefetch_mode: str | None = no_effect("batches are always made ahead")
    num_prefetch_queue: int | None = no_effect("batches are always made ahead")
    pin_memory: bool | None = no_effect("memory is pinned when there is a GPU")

    def stages(self) -> Stages:
        """The stages of the run; one when progressive learning is not asked for."""
        if self.iters and self.gt_sizes and self.mini_batch_sizes:
            return Stages(self.iters, self.mini_batch_sizes, self.gt_sizes)
        return Stages.single(self.batch_size_per_gpu, self.gt_size)


class PairedImageDataset(_Pairs):
    """Two folders, LQ and GT, matched by name."""

    type: Literal["PairedImageDataset"] = "PairedImageDataset"


class DegradedImageDataset(_Degraded):
    """One folder of GT; LQ is made from it on the fly."""

    type: Literal["DegradedImageDataset"] = "DegradedImageDataset"


class SIDDBlocksDataset(SetOptions):
    """SIDD's validation blocks, in its two files ValidationNoisyBlocksSrgb.mat and
    ValidationGtBlocksSrgb.mat; held in memory while in use."""

    type: Literal["SIDDBlocksDataset"] = "SIDDBlocksDataset"
    dataroot: UserPath
    """The folder with both files."""
    io_backend: DiskOptions = DiskOptions()


class SingleImageDataset(_Common):
    """One folder of LQ without ground truth: restored, not scored."""

    type: Literal["SingleImageDataset"] = "SingleImageDataset"
    dataroot_lq: UserPath


class DualPixelDataset(_Common):
    """DPDD: left and right views and GT in three folders, the same names in each.

    LQ has six channels, left before right.
    """

    type: Literal["DualPixelDataset"] = "DualPixelDataset"
    dataroot_gt: UserPath
    dataroot_lqL: UserPath
    dataroot_lqR: UserPath


class PairedImageTraining(PairedImageDataset, TrainingOptions):
    """PairedImageDataset to train on."""


class DualPixelTraining(DualPixelDataset, TrainingOptions):
    """DualPixelDataset to train on."""


class DegradedImageTraining(DegradedImageDataset, TrainingOptions):
    """DegradedImageDataset to train on."""


TRAINING_SETS: Catalog[type[Section]] = Catalog(
    "training data set",
    {
        "PairedImageDataset": PairedImageTraining,
        "DegradedImageDataset": DegradedImageTraining,
        "DualPixelDataset": DualPixelTraining,
    },
)
EVALUATION_SETS: Catalog[type[Section]] = Catalog(
    "data set",
    {
        "PairedImageDataset": PairedImageDataset,
        "DegradedImageDataset": DegradedImageDataset,
        "DualPixelDataset": DualPixelDataset,
        "SIDDBlocksDataset": SIDDBlocksDataset,
        "SingleImageDataset": SingleImageDataset,
    },
)
TRAINING_SET = OneOf(TRAINING_SETS, lambda section: section)
EVALUATION_SET = OneOf(EVALUATION_SETS, lambda section: section)


def channels_of(options: Section) -> tuple[int, ...]:
    """How many channels the LQ of data set `options` can have."""
    if isinstance(options, _Degraded) and options.gray is not None:
        return (1,)
    return (6,) if isinstance(options, DualPixelDataset) else (1, 3)


def check_degradation(options: Section, scale: int) -> tuple[str, str, str, str] | None:
    """What is wrong with the degradation of data set `options` at `scale`, or None.

    (what, got, expected, fix) of a Problem OPT36; sets without a degradation have nothing wrong.
    """
    if not isinstance(options, _Degraded):
        return None
    kind = str(getattr(options.degradation, "type"))  # noqa: B009
    others = ", ".join(name for name in DEGRADATIONS if name != "BicubicDown")
    if kind == "BicubicDown" and scale == 1:
        what, fix = "BicubicDown changes nothing at scale 1", f"choose another: {others}"
        return what, kind, "a scale above 1, or a degradation that keeps the size", fix
    if kind != "BicubicDown" and kind in DEGRADATIONS and scale != 1:
        return f"{kind} keeps the image's size", f"scale {scale}", "scale 1", "use BicubicDown"
    return None
