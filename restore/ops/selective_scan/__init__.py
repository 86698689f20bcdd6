"""Floor 2. Selective scan: the op of Mamba and MaIR, by several backends of one meaning."""

from restore.ops.selective_scan.choice import check_override
from restore.ops.selective_scan.dispatch import (
    available_backends,
    map_scan,
    merge_directions,
    selective_scan,
)

__all__ = ["available_backends", "check_override", "map_scan", "merge_directions", "selective_scan"]
