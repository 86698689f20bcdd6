"""Floor 3. MaIR (CVPR 2025, arXiv 2412.20066): both networks, and the two parts that plug in
anywhere."""

from restore.archs.mair.scan_order import NestedScan
from restore.archs.mair.shuffle_attention import SequenceShuffleAttention

__all__ = ["NestedScan", "SequenceShuffleAttention"]
