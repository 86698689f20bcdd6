"""The bridge to BasicSR, against a stand-in for its registries: BasicSR itself is not here.

The stand-in has what the bridge uses of BasicSR 1.4: `register(obj)` under `obj.__name__` with an
assertion that the name is free, `get(name)`, `in`; and the calls that BasicSR makes.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from restore.archs import build_network
from restore.archs.table import ARCHS
from restore.errors import BackendError, OptionError
from restore.losses.options import LOSSES
from restore.metrics.protocols import PROTOCOLS
from restore.metrics.scores import score

from helpers import noise

BRIDGE = "restore.bridges.basicsr"


class Registry:
    def __init__(self, *names: str) -> None:
        self.entries: dict[str, Any] = {name: None for name in names}

    def register(self, entry: Any) -> None:
        assert entry.__name__ not in self.entries
        self.entries[entry.__name__] = entry

    def get(self, name: str) -> Any:
        return self.entries[name]

    def __contains__(self, name: str) -> bool:
        return name in self.entries


@pytest.fixture
def basicsr(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in, with the names that BasicSR has itself, and the bridge imported afresh."""
    registries: Any = ModuleType("basicsr.utils.registry")
    registries.ARCH_REGISTRY = Registry("EDSR", "RRDBNet")
    registries.LOSS_REGISTRY = Registry("L1Loss", "MSELoss", "CharbonnierLoss")
    registries.METRIC_REGISTRY = Registry("calculate_psnr", "calculate_ssim", "calculate_niqe")
    for name in ("basicsr", "basicsr.utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "basicsr.utils.registry", registries)
    monkeypatch.delitem(sys.modules, BRIDGE, raising=False)
    importlib.import_module(BRIDGE)
    yield registries
    sys.modules.pop(BRIDGE, None)


def test_every_part_is_registered_and_nothing_of_basicsr_is_replaced(basicsr: Any) -> None:
    assert set(basicsr.ARCH_REGISTRY.entries) == {"EDSR", "RRDBNet", *ARCHS}
    own = {f"{name}_restore" for name in ("L1Loss", "MSELoss", "CharbonnierLoss")}
    assert own | {"FrequencyLoss"} < set(basicsr.LOSS_REGISTRY.entries)
    assert basicsr.LOSS_REGISTRY.get("L1Loss") is None
    names = importlib.import_module(BRIDGE).REGISTERED
    assert set(names) == {*ARCHS, *LOSSES, "calculate_psnr", "calculate_ssim"}
    assert names["SPAN"] == "SPAN" and names["L1Loss"] == "L1Loss_restore"


SMALL = {
    "SPAN": {"feature_channels": 8, "upscale": 2},
    "MIRNet_v2": {"n_feat": 16, "n_MRB": 1},
    "MIMOUNet": {"num_res": 1},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_network_is_built_and_called_as_basicsr_does(basicsr: Any, name: str) -> None:
    torch.manual_seed(1)
    made = basicsr.ARCH_REGISTRY.get(name)(**SMALL[name])
    torch.manual_seed(1)
    ours = build_network({"type": name, **SMALL[name]})
    assert made.state_dict().keys() == ours.state_dict().keys()
    lq = noise((1, 3, 16, 16)).float()
    with torch.no_grad():
        output, own = made.eval()(lq), ours.eval()(lq)
    assert torch.equal(output, own[0] if isinstance(own, tuple) else own)


def test_a_wrong_option_is_our_error(basicsr: Any) -> None:
    with pytest.raises(OptionError, match="feature_channels"):
        basicsr.ARCH_REGISTRY.get("SPAN")(feature_chanels=8)


def test_a_loss_takes_one_output_or_several(basicsr: Any) -> None:
    loss = basicsr.LOSS_REGISTRY.get("L1Loss_restore")(loss_weight=0.5, reduction="mean")
    output, target = noise((1, 3, 8, 8), 1), noise((1, 3, 8, 8), 2)
    assert isinstance(loss.to("cpu"), torch.nn.Module)
    expected = 0.5 * (output - target).abs().mean()
    assert torch.allclose(loss(output, target), expected)
    half = noise((1, 3, 4, 4), 3)
    assert loss((output, half), target) > expected
    network = basicsr.ARCH_REGISTRY.get("MIMOUNet")(num_res=1)
    lq = noise((1, 3, 16, 16)).float()
    frequency = basicsr.LOSS_REGISTRY.get("FrequencyLoss")()
    frequency(network.train()(lq), lq).backward()
    assert all(p.grad is not None for p in network.parameters())


def test_metrics_turn_bgr_into_rgb(basicsr: Any) -> None:
    rng = np.random.default_rng(0)
    rgb, other = rng.integers(0, 256, (2, 24, 20, 3)).astype(np.uint8)
    data = {"img": rgb[..., ::-1], "img2": other[..., ::-1]}
    for index, name in enumerate(("calculate_psnr_restore", "calculate_ssim_restore")):
        metric = basicsr.METRIC_REGISTRY.get(name)
        for flag, protocol in ((True, "sr-y"), (False, "rgb")):
            expected = score(PROTOCOLS[protocol], rgb, other, 2)[index]
            assert metric(**data, crop_border=2, test_y_channel=flag) == expected
        rounded = score(PROTOCOLS["sr-y-rounded"], rgb, other, 2)[index]
        assert metric(**data, crop_border=2, protocol="sr-y-rounded") == rounded


@pytest.mark.parametrize("error", [ModuleNotFoundError("no"), RuntimeError("torchvision::nms")])
def test_without_basicsr_the_error_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    real = importlib.import_module

    def absent(name: str, *rest: Any) -> ModuleType:
        if name.startswith("basicsr"):
            raise error
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, BRIDGE, raising=False)
    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(BackendError) as caught:
        real(BRIDGE)
    text = str(caught.value)
    assert text.startswith("error[ENV32]: BasicSR cannot be imported (restore.bridges.basicsr)")
    assert type(error).__name__ in text and "pip install basicsr" in text and "torchvision" in text
