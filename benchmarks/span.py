"""SPAN: units merged per step against the published branches, and the deploy form.

  python benchmarks/span.py [--quick] [--no-record]

Equality of outputs, losses and gradients is asserted in float64 before anything is timed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from restore.archs import build_network, fuse
from restore.archs.span import ReparamUnit

from common import command_line, interleaved, record, table


def branch_form(network: nn.Module) -> nn.Module:
    """The slow truth: every unit branch by branch, as published."""
    twin = copy.deepcopy(network)
    for unit in twin.modules():
        if isinstance(unit, ReparamUnit):
            unit.forward = unit.branches
    return twin


def refusing_form(network: nn.Module) -> nn.Module:
    """Evaluation as published: all units merged again in every forward."""
    return copy.deepcopy(network).eval()


def step(network: nn.Module, lq: torch.Tensor, gt: torch.Tensor) -> torch.Tensor:
    """Forward, L1, backward."""
    network.zero_grad(set_to_none=True)
    loss = F.l1_loss(network(lq), gt)
    loss.backward()
    return loss


def assert_equal(network: nn.Module, lq: torch.Tensor, gt: torch.Tensor) -> str:
    """Largest relative difference of loss and gradients between the two forms, in float64."""
    merged = copy.deepcopy(network).double()
    branches = branch_form(merged)
    losses = [step(form, lq.double(), gt.double()).item() for form in (merged, branches)]
    worst = abs(losses[0] - losses[1]) / abs(losses[1])
    for ours, truth in zip(merged.parameters(), branches.parameters(), strict=True):
        assert ours.grad is not None and truth.grad is not None
        difference = (ours.grad - truth.grad).norm() / truth.grad.norm()
        worst = max(worst, difference.item())
    assert worst < 1e-10, worst
    with torch.no_grad():
        outputs = (fuse(merged)(lq.double()) - branches(lq.double())).abs().max().item()
    assert outputs < 1e-9, outputs
    return f"float64: loss and gradients agree to {worst:.1e}, deploy form to {outputs:.1e}"


def main() -> None:
    """Measure and record."""
    args = command_line(__doc__, quick="3 rounds").parse_args()
    rounds = 3 if args.quick else 7
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = build_network({"type": "SPAN", "feature_channels": 48, "upscale": 4})
    lq, gt = torch.rand(4, 3, 64, 64), torch.rand(4, 3, 256, 256)
    agreed = assert_equal(network, lq[:1, :, :24, :20], gt[:1, :, :96, :80])
    branches, published = branch_form(network), refusing_form(network)
    deployed = fuse(network)
    last = deployed.to(memory_format=torch.channels_last)
    small = torch.rand(1, 3, 64, 64)

    def eager(form: nn.Module, x: torch.Tensor) -> Callable[[], object]:
        def forward() -> None:
            with torch.inference_mode():
                form(x)

        return forward

    training = interleaved(
        {
            "branches": lambda: step(branches, lq, gt),
            "merged": lambda: step(network, lq, gt),
        },
        rounds,
    )
    inference = interleaved(
        {
            "merged each forward": eager(published, small),
            "fused once": eager(fuse(network), small),
            "fused once, channels_last": eager(last, small.to(memory_format=torch.channels_last)),
        },
        rounds * 3,
    )
    body = (
        f"{agreed}\n\ntraining step, SPAN 48ch ×4, batch 4 × LR 64², one thread\n"
        f"{table(training, 'branches')}\n\ninference, SPAN 48ch ×4, LR 64², one thread\n"
        f"{table(inference, 'merged each forward')}"
    )
    record(args, "SPAN: merged units", body)


if __name__ == "__main__":
    main()
