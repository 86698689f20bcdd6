"""What the fingerprints of the networks rest on."""

from __future__ import annotations

import pytest

from helpers import hashed


def test_the_hash_rule() -> None:
    assert hashed(0, 3) == pytest.approx([0.85315967, 0.48880419, 0.32416183], abs=5e-9)
    assert hashed(5, 2) == pytest.approx([-0.83398253, 0.47084499], abs=5e-9)
    assert (hashed(10**6, 2) + 1) / 2 == pytest.approx([0.9160, 0.8645], abs=5e-5)
