"""Mixup: a convex blend, the same for LQ and GT, a pure function of (seed, step, rank)."""

from __future__ import annotations

import torch

from restore.training.mixing import Mixup


def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    lq = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    return lq, 10 * lq.repeat_interleave(2, -1)


def test_lq_and_gt_are_blended_alike() -> None:
    weights = set()
    for step in range(40):
        lq, gt = Mixup(1.2, False, seed=1, rank=0)(*pairs(), step)
        assert torch.allclose(gt[..., :2, ::2], 10 * lq)
        assert lq.min() >= 0 and lq.max() <= 3
        torch.testing.assert_close(lq.mean(), torch.tensor(1.5))  # a permutation keeps the mean
        weights.add(tuple(lq[:, 0, 0, 0].tolist()))
    assert len(weights) > 35


def test_half_of_the_batches_are_left_alone() -> None:
    mixup = Mixup(1.2, True, seed=1, rank=0)
    left = sum(torch.equal(mixup(*pairs(), step)[0], pairs()[0]) for step in range(400))
    assert 160 < left < 260  # a blend may also be the identity: 1 in 24 orders


def test_chance_is_a_function_of_seed_step_and_rank() -> None:
    torch.manual_seed(0)
    truth = Mixup(1.2, False, seed=1, rank=0)(*pairs(), 7)[0]
    torch.manual_seed(99)
    assert torch.equal(Mixup(1.2, False, seed=1, rank=0)(*pairs(), 7)[0], truth)
    others = [
        Mixup(1.2, False, seed=2, rank=0)(*pairs(), 7)[0],
        Mixup(1.2, False, seed=1, rank=1)(*pairs(), 7)[0],
        Mixup(1.2, False, seed=1, rank=0)(*pairs(), 8)[0],
    ]
    assert not any(torch.equal(other, truth) for other in others)
