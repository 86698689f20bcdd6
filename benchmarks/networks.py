"""MIRNet-v2 and MIMO-UNet+ against plain twins: the published formulation, written plainly.

  python benchmarks/networks.py [--only mirnet|mimo] [--quick] [--no-record]

Equality of outputs and gradients is asserted in float64 before anything is timed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from plain_mimo_unet import PlainMIMOUNet
from plain_mirnet_v2 import PlainMIRNetV2
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs import build_network
from restore.archs.options import MirnetV2Options

from common import command_line, interleaved, ratio, record, table

BARS = {"mirnet inference": 1.8, "mirnet training": 1.8, "mimo inference": 1.15}


def finest(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """The full-size image of a network that may give several."""
    return output[0] if isinstance(output, tuple) else output


def forward(network: nn.Module, lq: Tensor) -> Callable[[], object]:
    """One inference, to be timed."""

    def run() -> None:
        with torch.inference_mode():
            network(lq)

    return run


def step(network: nn.Module, lq: Tensor, gt: Tensor) -> Callable[[], Tensor]:
    """Forward, L1, backward, to be timed."""

    def run() -> Tensor:
        network.zero_grad(set_to_none=True)
        loss = F.l1_loss(finest(network(lq)), gt)
        loss.backward()
        return loss

    return run


def assert_equal(fast: nn.Module, plain: nn.Module, side: int) -> str:
    """Largest relative difference of output and gradients between the two forms, in float64."""
    pair = [copy.deepcopy(network).double().eval() for network in (fast, plain)]
    lq, gt = torch.rand(2, 2, 3, side, side + 4, dtype=torch.float64)
    with torch.no_grad():
        ours, truth = (finest(network(lq)) for network in pair)
    output = ((ours - truth).norm() / truth.norm()).item()
    for network in pair:
        step(network, lq, gt)()
    gradients = 0.0
    for own, theirs in zip(*(network.parameters() for network in pair), strict=True):
        if theirs.grad is None:  # of MIMO-UNet's coarser outputs, which are not scored here
            assert own.grad is None
            continue
        assert own.grad is not None
        difference = (own.grad - theirs.grad).norm() / theirs.grad.norm()
        gradients = max(gradients, difference.item())
    assert output < 1e-10 and gradients < 1e-10, (output, gradients)
    return f"float64: outputs agree to {output:.1e}, gradients to {gradients:.1e}"


def judged(times: dict[str, list[float]], bar: str) -> str:
    """The table of a measurement and whether its bar holds."""
    found = ratio(times, "plain", "ours")
    holds = "holds" if found >= BARS[bar] else "MISSED"
    return f"{table(times, 'plain')}\nbar ≥ {BARS[bar]} × {holds}"


def mirnet(rounds: int) -> str:
    """MIRNet-v2 as published (80 channels): inference at 128², training step of 2 × 128²."""
    ours = build_network({"type": "MIRNet_v2"})
    plain = PlainMIRNetV2(MirnetV2Options())
    plain.load_state_dict(ours.state_dict())
    agreed = assert_equal(ours, plain, 20)
    lq, gt = torch.rand(2, 2, 3, 128, 128)
    inference = interleaved(
        {"plain": forward(plain, lq[:1]), "ours": forward(ours, lq[:1])}, rounds * 2
    )
    training = interleaved({"plain": step(plain, lq, gt), "ours": step(ours, lq, gt)}, rounds)
    return (
        f"MIRNet-v2, 80 channels. {agreed}\n\n"
        f"inference, 128², one thread\n{judged(inference, 'mirnet inference')}\n\n"
        f"training step, batch 2 × 128², one thread\n{judged(training, 'mirnet training')}"
    )


def mimo(rounds: int) -> str:
    """MIMO-UNet+: inference at 256²."""
    ours = build_network({"type": "MIMOUNetPlus"}).eval()
    plain = PlainMIMOUNet(20).eval()
    plain.load_state_dict(ours.state_dict())
    agreed = assert_equal(ours, plain, 20)
    lq = torch.rand(1, 3, 256, 256)
    inference = interleaved({"plain": forward(plain, lq), "ours": forward(ours, lq)}, rounds)
    return (
        f"MIMO-UNet+. {agreed}\n\n"
        f"inference, 256², one thread\n{judged(inference, 'mimo inference')}"
    )


SECTIONS = {"mirnet": mirnet, "mimo": mimo}


def main() -> None:
    """Measure and record."""
    parser = command_line(__doc__, quick="3 rounds")
    parser.add_argument("--only", choices=SECTIONS, help="one network only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    names = [args.only] if args.only else list(SECTIONS)
    body = "\n\n".join(SECTIONS[name](3 if args.quick else 7) for name in names)
    record(args, "Networks against plain twins", body)


if __name__ == "__main__":
    main()
