"""Floor 3. Scoring rules by name: what exactly is compared when a PSNR or SSIM is printed.

The choice moves a number by more than most papers gain over each other, so every printed score
carries the rule's name and version. All rules work on the 0..255 range, declared and never guessed;
the PSNR of a set is the mean of its images' dB, its SSIM the mean of theirs. A change that moves a
digit raises the rule's version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from restore.catalog import Catalog

Dialect = Literal["valid2d", "volume3d", "zeropad", "skimage7"]
"""The forms of SSIM in use, as `restore.metrics.similarity` defines them."""


@dataclass(frozen=True)
class ScoringRule:
    """How two images become the planes that are compared, and which SSIM compares them."""

    name: str
    about: str
    colour: Literal["rgb", "y"]
    """`y`: BT.601 studio-range luma, 16..235."""
    ssim: Dialect = "valid2d"
    border: Literal["scale", "none"] = "none"
    """Pixels shaved from every side unless told: the scale, or nothing."""
    pixels: Literal["stored", "unrounded"] = "stored"
    """The restored image as a file holds it, or as the network gave it, limited to the range."""
    align: Literal["none", "centre-crop", "realblur"] = "none"
    """What is done to bring two images together: nothing; a larger target cut at all sides alike;
    RealBlur's gain, homography and mask."""
    round_luma: bool = False
    """Luma rounded to integers, as MATLAB's rgb2ycbcr does for uint8."""
    gray: Literal["as-is", "replicate"] = "replicate"
    """A gray image: kept as the luma plane, or first made RGB (which compresses its contrast)."""
    clip_luma: bool = False
    """The restored luma limited to 16..235 and rounded."""
    version: int = 1

    @property
    def stamp(self) -> str:
        """Name and version, as every record carries them: `sr-y@1`."""
        return f"{self.name}@{self.version}"

    @property
    def form(self) -> tuple[object, ...]:
        """What moves a digit, the border aside: rules of one form give the same scores."""
        return (
            *(self.colour, self.ssim, self.pixels, self.align),
            *(self.round_luma, self.gray, self.clip_luma),
        )


_SUPER_RESOLUTION = (
    ScoringRule(
        "sr-y",
        "BasicSR, MaIR and SPAN: luma in floating point, border = scale",
        colour="y",
        border="scale",
    ),
    ScoringRule(
        "sr-y-rounded",
        "RCAN and MATLAB's rgb2ycbcr: luma rounded to integers, border = scale",
        colour="y",
        border="scale",
        round_luma=True,
    ),
    ScoringRule(
        "vdsr-y",
        "VDSR: rounded luma, gray images as they are, result limited to 16..235; "
        "the rule behind the bicubic figures that papers print",
        colour="y",
        border="scale",
        round_luma=True,
        gray="as-is",
        clip_luma=True,
    ),
    ScoringRule(
        "grl-y",
        "GRL's super-resolution: rounded luma, border = scale, SSIM with zeros around the image",
        colour="y",
        border="scale",
        ssim="zeropad",
        round_luma=True,
    ),
    ScoringRule(
        "rgb",
        "all three channels, border = scale (none at scale 1)",
        colour="rgb",
        border="scale",
    ),
)
_RESTORATION = (
    ScoringRule(
        "denoise-rgb",
        "Gaussian denoising as BasicSR and MaIR score it: all channels of the stored image",
        colour="rgb",
    ),
    ScoringRule(
        "grl-rgb",
        "GRL's denoising, demosaicking and deblurring: SSIM with zeros around the image",
        colour="rgb",
        ssim="zeropad",
    ),
    ScoringRule(
        "gopro-rgb",
        "GoPro and HIDE tables (evaluate_gopro_hide.m): stored image, MATLAB's ssim of a volume",
        colour="rgb",
        ssim="volume3d",
    ),
    ScoringRule(
        "gopro-unrounded",
        "MIMO-UNet's own figures: as `gopro-rgb`, the network's numbers not rounded",
        colour="rgb",
        ssim="volume3d",
        pixels="unrounded",
    ),
    ScoringRule(
        "sidd-val",
        "SIDD's 1280 validation blocks as MIRNet-v2 scores them: not rounded, MATLAB's ssim of a "
        "volume",
        colour="rgb",
        ssim="volume3d",
        pixels="unrounded",
    ),
    ScoringRule(
        "mirnet-rgb3d",
        "real denoising and dehazing of MaIR, NAFNet and HINet: not rounded, SSIM over windows of "
        "11×11×11",
        colour="rgb",
        ssim="volume3d",
        pixels="unrounded",
    ),
    ScoringRule(
        "sots-rgb",
        "RESIDE SOTS as FFA-Net scores it: not rounded, a larger target cut around its centre, "
        "SSIM with zeros around the image",
        colour="rgb",
        ssim="zeropad",
        pixels="unrounded",
        align="centre-crop",
    ),
    ScoringRule(
        "dpdd-rgb",
        "dual-pixel defocus deblurring: not rounded, scikit-image's SSIM of 7×7 means",
        colour="rgb",
        ssim="skimage7",
        pixels="unrounded",
    ),
    ScoringRule(
        "realblur-rgb",
        "RealBlur: gain matched, aligned by a homography, compared where both images reach",
        colour="rgb",
        align="realblur",
    ),
)
PROTOCOLS: Catalog[ScoringRule] = Catalog(
    "protocol", {rule.name: rule for rule in (*_SUPER_RESOLUTION, *_RESTORATION)}
)
Bordered = tuple[ScoringRule, int]
"""A rule with the pixels that it shaves from every side."""


def default_border(rule: ScoringRule, scale: int) -> int:
    """The border that `rule` shaves at `scale` when nothing else is asked for."""
    return scale if rule.border == "scale" and scale > 1 else 0
