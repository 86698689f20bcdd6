"""Floor 3. Scoring rules by name: what exactly is compared when a PSNR or SSIM is printed.

The choice moves a number by more than most papers gain over each other, so every printed score
carries the rule's name. All rules work on the 0..255 range, declared and never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from restore.catalog import Catalog


@dataclass(frozen=True)
class ScoringRule:
    """How two images become the planes that are compared. SSIM is the 11×11 Gaussian (σ 1.5) over
    the valid region, mean over channels; PSNR is per image, then averaged in dB."""

    name: str
    colour: Literal["rgb", "y"]
    """`y`: BT.601 studio-range luma, 16..235."""
    round_luma: bool
    """Luma rounded to integers, as MATLAB's rgb2ycbcr does for uint8."""
    gray: Literal["as-is", "replicate"]
    """A gray image: kept as the luma plane, or first made RGB (which compresses its contrast)."""
    clip_luma: bool
    """The restored luma limited to 16..235 and rounded."""
    border: Literal["scale", "none"]
    """Pixels shaved from every side unless told: the scale, or nothing."""
    about: str


PROTOCOLS: Catalog[ScoringRule] = Catalog(
    "protocol",
    {
        rule.name: rule
        for rule in (
            ScoringRule(
                "sr-y",
                "y",
                False,
                "replicate",
                False,
                "scale",
                "BasicSR, MaIR and SPAN: luma in floating point, border = scale",
            ),
            ScoringRule(
                "sr-y-rounded",
                "y",
                True,
                "replicate",
                False,
                "scale",
                "GRL, RCAN and MATLAB's rgb2ycbcr: luma rounded to integers, border = scale",
            ),
            ScoringRule(
                "vdsr-y",
                "y",
                True,
                "as-is",
                True,
                "scale",
                "VDSR: rounded luma, gray images as they are, result limited to 16..235; "
                "the rule behind the bicubic figures that papers print",
            ),
            ScoringRule(
                "rgb",
                "rgb",
                False,
                "replicate",
                False,
                "scale",
                "all three channels, border = scale (none at scale 1)",
            ),
        )
    },
)


def default_border(rule: ScoringRule, scale: int) -> int:
    """The border that `rule` shaves at `scale` when nothing else is asked for."""
    return scale if rule.border == "scale" and scale > 1 else 0
