"""A network: its options and its record. torch comes in with `model`, when one is built."""

from typing import Literal

from restore.archs.architecture import Architecture, SizeRule
from restore.section import Count, Section


class TwoLevelOptions(Section):
    """What `network_g` can say."""

    type: Literal["scratches.network:TWO_LEVEL"] = "scratches.network:TWO_LEVEL"
    width: Count = 16
    """Channels at full resolution."""


TWO_LEVEL = Architecture(
    name="TwoLevel",
    options=TwoLevelOptions,
    builder="scratches.model:build",
    scale=lambda options: 1,
    scale_key=None,
    channels=lambda options: 3,
    tasks=("scratch removal",),
    paper="none",
    license="Apache-2.0",
    size=SizeRule(minimum=2, multiple=2),  # images are padded to even sides
)
