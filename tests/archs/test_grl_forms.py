"""GRL's fast form against the published one, what it remembers, precision, any size."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from restore.archs import build_network, load_weights
from restore.archs.grl import attention, tables
from restore.archs.grl.attention import CosineAttention, Part
from restore.archs.grl.blocks import Block
from restore.archs.grl.network import GRL
from restore.archs.table import ARCHS
from restore.evaluation.predictor import Predictor

from helpers import BENCHMARKS, module_at, noise

PLAIN = module_at(BENCHMARKS / "plain_grl.py")
SMALL: dict[str, Any] = {
    "type": "GRL",
    "embed_dim": 16,
    "depths": [4],
    "num_heads_window": [2],
    "num_heads_stripe": [4],
    "window_size": 4,
    "stripe_size": [4, 8],
    "stripe_shift": True,
    "mlp_ratio": 2,
    "anchor_window_down_factor": 2,
}
TWO: dict[str, Any] = {"num_heads_window": [2, 1], "num_heads_stripe": [1, 2]}


def grl(seed: int = 0, **more: Any) -> GRL:
    torch.manual_seed(seed)
    network = build_network(SMALL | more)
    assert isinstance(network, GRL)
    with torch.no_grad():  # first weights hardly show where a bias or a mask is wrong
        for name, parameter in network.named_parameters():
            if name.endswith("logit_scale"):
                parameter.copy_(torch.linspace(-1, 5, len(parameter)).view(-1, 1, 1))
            elif ".cpb_mlp." in name or ".qkv." in name:
                parameter.copy_(torch.randn_like(parameter))
    return network


def as_published(network: GRL) -> nn.Module:
    """The plain twin with the same weights, in the same precision and mode."""
    twin = PLAIN.PlainGRL(network.options).to(network.conv_first.weight.dtype)
    twin.load_state_dict(network.state_dict())
    return twin.train(network.training)


def near(a: Tensor, b: Tensor, slack: float = 1e-10) -> bool:
    return bool((a - b).norm() <= slack * b.norm())


# The fast form against the published one ----------------------------------------------------------

FORMS: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "one window": ({}, (4, 5)),
    "odd sides": ({}, (13, 19)),
    "no shift of stripes": ({"stripe_shift": False}, (16, 8)),
    "odd windows": ({"window_size": 3, "stripe_size": [6, 6]}, (12, 18)),
    "depths 6 and 2": ({"depths": [6, 2], **TWO}, (16, 16)),
    "a shift below the down factor": (
        {"anchor_window_down_factor": 4, "stripe_size": [4, 8], "embed_dim": 32},
        (16, 24),
    ),
    "stripes as wide as the map": ({"stripe_size": [8, 16]}, (16, 16)),
    "down factor 1": ({"anchor_window_down_factor": 1}, (8, 24)),
    "groups": (
        {"stripe_size": [8, None], "stripe_groups": [None, 4], "anchor_window_down_factor": 4},
        (32, 64),
    ),
    "one group": ({"stripe_groups": [1, None]}, (8, 16)),
    "measured by another size": (
        {"pretrained_window_size": [8, 8], "pretrained_stripe_size": [16, 32]},
        (8, 16),
    ),
    "no bias of qkv": ({"qkv_bias": False}, (8, 8)),
    "residuals by a tenth": ({"init_method": "r"}, (8, 8)),
}


@pytest.mark.parametrize("name", FORMS)
def test_same_output_and_gradients_as_published(name: str) -> None:
    more, size = FORMS[name]
    fast = grl(**more).double().eval()
    slow = as_published(fast)
    inputs = [noise((2, 3, *size)).requires_grad_() for _ in range(2)]
    outputs = [network(lq) for network, lq in zip((fast, slow), inputs, strict=True)]
    assert outputs[0].shape == inputs[0].shape and near(*outputs)
    for output in outputs:
        (output * noise(tuple(output.shape), seed=1)).sum().backward()
    assert inputs[0].grad is not None and inputs[1].grad is not None
    assert near(inputs[0].grad, inputs[1].grad)
    for (key, ours), theirs in zip(fast.named_parameters(), slow.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        assert (ours.grad - theirs.grad).norm() <= 1e-9 * (theirs.grad.norm() + 1e-6), key


@settings(max_examples=25)
@given(
    window=st.integers(2, 5),
    stripe=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    down=st.sampled_from([1, 2, 3]),
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    chunk=st.sampled_from([1, 100, 10**6]),
)
def test_any_geometry_is_the_published_one(
    window: int, stripe: tuple[int, int], down: int, size: tuple[int, int], chunk: int
) -> None:
    fast = grl(
        window_size=window,
        stripe_size=[2 * down * side for side in stripe],
        anchor_window_down_factor=down,
    )
    fast.double().eval()
    slow = as_published(fast)
    before = attention.CHUNK["cpu"]
    attention.CHUNK["cpu"] = chunk
    try:
        with torch.no_grad():
            lq = noise((1, 3, *size))
            assert near(fast(lq), slow(lq), 1e-11)
    finally:
        attention.CHUNK["cpu"] = before


@pytest.mark.parametrize("masked", [False, True])
def test_one_attention_with_outputs_and_gradients(masked: bool) -> None:
    """Against softmax(scale · cos + bias + mask) · v, written out, with negative scales."""
    torch.manual_seed(0)
    module = CosineAttention(3).double()
    with torch.no_grad():
        module.logit_scale.copy_(torch.tensor([-2.0, 3.0, 6.0]).view(3, 1, 1))
        for weight in module.cpb_mlp.parameters():
            weight.normal_()
    plain = PLAIN.PlainTransform(3).double()
    plain.load_state_dict(module.state_dict())
    tokens, few, down = (4, 6), (2, 3), 2
    cells = tables.grid((8, 12), tokens, (2, 3), down, (0, 0), torch.device("cpu"), torch.float64)
    region = cells.regions[-1]
    leaves = [noise((2, 3, n, 5), seed).requires_grad_() for seed, n in enumerate((24, 6, 6))]
    q, k, v = leaves
    mask = region.of_tokens if masked else None
    part = Part(q, k.flip(2), v.flip(2), mask)
    (found,) = module([part], cells.from_tokens, tokens, few)
    table = PLAIN.coordinate_table(tokens, down).double()
    index, _ = PLAIN.index_tables(tokens, down)
    shown = mask.rows[mask.labels].flip(1)[None] if mask is not None else None
    expected = plain(q, k, v, table, index, shown)
    assert near(found, expected, 1e-13)
    weights = noise(tuple(found.shape), seed=9)
    ours = torch.autograd.grad((found * weights).sum(), [*leaves, *module.parameters()])
    theirs = torch.autograd.grad((expected * weights).sum(), [*leaves, *plain.parameters()])
    for a, b in zip(ours, theirs, strict=True):
        assert near(a, b, 1e-11) or max(a.norm(), b.norm()) < 1e-12
    # the scale is held at 100 from above, and not from below
    assert ours[3].flatten().ne(0).tolist() == [True, True, False]


def test_a_mask_is_minus_100_and_leaks_as_published() -> None:
    """At the largest scale a masked pair counts: with -inf the output would differ."""
    network = grl().double().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("logit_scale"):
                parameter.fill_(5.0)
        lq = noise((1, 3, 16, 16))
        found = network(lq)
        assert near(found, as_published(network)(lq), 1e-11)
        cells = tables.geometry(network.options, 16, 16, network.conv_first.weight)
        rows = [m.rows for g in cells for r in g.regions for m in r[4:] if m is not None]
        assert rows and {x for row in rows for x in row.unique().tolist()} == {-100.0, 0.0}
        for row in rows:
            row.mul_(1e6)
        assert not near(network(lq), found, 1e-9)
    tables.grid.cache_clear()


# Any size -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3), (8, 17), (16, 16)])
@pytest.mark.parametrize("upscale", [1, 3])
def test_any_size_is_padded_as_published(size: tuple[int, int], upscale: int) -> None:
    head = {"upscale": 3, "upsampler": "pixelshuffledirect"} if upscale == 3 else {}
    network = grl(**head).double().eval()
    lq = noise((2, 3, *size))
    sides = [-(-side // 8) * 8 for side in size]
    added = [padded - side for padded, side in zip(sides, size, strict=True)]
    mirrored = all(a < side for a, side in zip(added, size, strict=True))
    mode = "reflect" if mirrored else "constant"
    whole = F.pad(lq, (0, added[1], 0, added[0]), mode=mode)
    with torch.no_grad():
        found, expected = network(lq), network(whole)
    assert found.shape == (2, 3, upscale * size[0], upscale * size[1])
    assert near(found, expected[..., : upscale * size[0], : upscale * size[1]], 1e-12)
    restored = Predictor(network, upscale, ARCHS["GRL"].size)(lq)
    assert torch.equal(restored, found)  # the predictor adds no padding of its own


def test_images_of_a_batch_do_not_see_each_other() -> None:
    network = grl(local_connection=True, embed_dim=40).double().eval()
    lq = noise((3, 3, 8, 16))
    with torch.no_grad():
        together = network(lq)
        for index in range(3):
            assert near(together[index : index + 1], network(lq[index : index + 1]), 1e-12)


def test_sizes_that_alternate_cost_a_look_up() -> None:
    network = grl(stripe_size=[8, None], stripe_groups=[None, 2]).eval()
    sizes = [(8, 16), (24, 16), (16, 40), (8, 32)]
    perceptrons = counted(network)
    tables.grid.cache_clear()
    with torch.inference_mode():
        first = [network(noise((1, 3, *size)).float()) for size in sizes]
        made, run = tables.grid.cache_info().misses, perceptrons()
        assert made > len(sizes) and run > 0
        for _ in range(3):
            for size, expected in zip(sizes, first, strict=True):
                assert torch.equal(network(noise((1, 3, *size)).float()), expected)
    assert tables.grid.cache_info().misses == made and perceptrons() == run
    limit = tables.grid.cache_info().maxsize
    assert limit is not None and limit <= 64
    assert not [key for key in network.state_dict() if "table" in key or "mask" in key]


def test_biases_serve_maps_of_every_size() -> None:
    """They belong to the window and the stripe: an image of a new size makes no new ones."""
    network = grl().eval()
    perceptrons = counted(network)
    with torch.no_grad():
        network(noise((1, 3, 8, 8)).float())
        run = perceptrons()
        for size in ((8, 16), (9, 31), (40, 24)):
            network(noise((1, 3, *size)).float())
    assert perceptrons() == run


def test_what_is_remembered_is_bounded() -> None:
    memory = attention.BiasMemory()
    weights = [torch.ones(3)]
    coordinates = [torch.zeros(1) for _ in range(20)]
    for of in coordinates:
        memory.keep(of, weights, torch.zeros(2))
    known = [memory.known(of, weights) is not None for of in coordinates]
    assert known == [False] * 12 + [True] * 8


# What is remembered -------------------------------------------------------------------------------


def counted(network: nn.Module) -> Callable[[], int]:
    """How often a bias was computed in `network` so far, in pieces."""
    runs: list[int] = []
    for module in network.modules():
        if isinstance(module, CosineAttention):
            module.cpb_mlp[0].register_forward_hook(lambda *_: runs.append(1))
    return lambda: len(runs)


def by_loading(network: GRL) -> None:
    load_weights(network, grl(seed=5).state_dict())


def by_a_step(network: GRL) -> None:
    lq = noise((1, 3, 8, 8)).to(network.conv_first.weight.dtype)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.5)
    network(lq).square().mean().backward()
    optimiser.step()


def by_writing_past_autograd(network: GRL) -> None:
    for parameter in network.parameters():
        parameter.data.add_(0.1)


def by_swapping_data(network: GRL) -> None:
    for parameter in network.parameters():
        for _ in range(3):  # the last may lie where the first did
            parameter.data = parameter.data * 1.1


def by_new_parameters(network: GRL) -> None:
    for module in network.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(parameter.detach() * 1.1))


def by_averaging(network: GRL) -> None:
    with torch.no_grad():
        for own, other in zip(network.parameters(), grl(seed=6).parameters(), strict=True):
            own.lerp_(other, 0.3)


CHANGES = [
    by_loading,
    by_a_step,
    by_writing_past_autograd,
    by_swapping_data,
    by_new_parameters,
    by_averaging,
]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_no_bias_outlives_its_weights(
    change: Callable[[GRL], None], mode: Callable[[], Any]
) -> None:
    network = grl().eval()
    lq = noise((1, 3, 8, 16)).float()
    with mode():
        before = network(lq)
    change(network)
    with mode():
        after = network(lq)
        assert not torch.equal(before, after)
        assert torch.equal(after, as_new(network)(lq))


def as_new(network: GRL) -> GRL:
    """The same weights in a network that has not run."""
    fresh = GRL(network.options).to(network.conv_first.weight.dtype)
    fresh.load_state_dict(network.state_dict())
    return fresh.eval()


def test_there_and_back_between_precisions_and_copies() -> None:
    network = grl().eval()
    lq = noise((1, 3, 8, 16))
    with torch.no_grad():
        single = network(lq.float())
        network.double()
        assert torch.equal(network(lq), as_new(network)(lq))
        for parameter in network.parameters():
            parameter.mul_(1.5)
        network.float()
        assert torch.equal(network(lq.float()), as_new(network)(lq.float()))
        assert not torch.equal(network(lq.float()), single)
        twin = copy.deepcopy(network)
        by_averaging(twin)
        assert torch.equal(twin(lq.float()), as_new(twin)(lq.float()))
        assert torch.equal(network(lq.float()), as_new(network)(lq.float()))


def test_biases_are_made_once_in_evaluation_and_anew_in_training() -> None:
    network = grl().eval()
    runs = counted(network)
    lq = noise((1, 3, 8, 16)).float()
    with torch.inference_mode():
        network(lq)
        once = runs()
        assert once >= 12
        network(lq)
        assert runs() == once
    network.train()  # what was made in inference mode must not get in the way
    network(lq).sum().backward()
    network(lq).sum().backward()
    assert runs() == once + 24
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.any()), name


# Training -----------------------------------------------------------------------------------------


def test_checkpointing_changes_no_number() -> None:
    """Also with drop path and dropout, whose draws the second pass has to repeat."""
    drops: dict[str, Any] = {"drop_path_rate": 0.5, "drop_rate": 0.2, "attn_drop_rate": 0.2}
    plain, saving = grl(**drops), grl(use_checkpoint=True, **drops)
    lq = noise((4, 3, 8, 16)).float()
    outputs = []
    for network in (plain, saving):
        torch.manual_seed(3)
        output = network(lq)
        output.square().mean().backward()
        outputs.append(output)
    assert torch.equal(*outputs)
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None and torch.equal(a.grad, b.grad), name
    for network in (plain, saving):
        network.eval()
    with torch.no_grad():
        assert torch.equal(plain(lq), saving(lq))


def test_checkpointing_keeps_less() -> None:
    def kept(network: GRL) -> int:
        sizes: list[int] = []

        def pack(tensor: Tensor) -> Tensor:
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(noise((1, 3, 16, 16)).float())
        return sum(sizes)

    assert kept(grl(use_checkpoint=True)) < 0.2 * kept(grl())


def test_drop_path_rises_from_block_to_block_and_keeps_the_mean() -> None:
    network = grl(depths=[4, 2], **TWO)
    blocks = [module for module in network.modules() if isinstance(module, Block)]
    assert [b.left_out for b in blocks] == pytest.approx([0, 0.02, 0.04, 0.06, 0.08, 0.1])
    block = blocks[-1]
    branch = torch.ones(100_000, 1, 1, 2)
    dropped = block._branch(branch)
    assert dropped.unique().tolist() == pytest.approx([0, 1 / 0.9])
    assert torch.equal(dropped[..., 0], dropped[..., 1])
    assert dropped.mean().item() == pytest.approx(1, abs=0.01)
    assert torch.equal(block.eval()._branch(branch), branch)


@pytest.mark.parametrize("method", ["n", "r", "w", "l", "t2", "t02"])
def test_first_weights(method: str) -> None:
    torch.manual_seed(0)
    network = build_network(SMALL | {"embed_dim": 64, "depths": [4], "init_method": method})
    assert isinstance(network, GRL)
    block = network.layers.get_submodule("0.blocks.1")
    std = {"w": 0.002, "t2": 0.2, "t02": 0.02}.get(method, 0.02)
    for key in ("attn.qkv.body", "attn.proj", "mlp.fc1", "mlp.fc2"):
        layer: Any = block.get_submodule(key)
        assert layer.weight.std().item() == pytest.approx(std, rel=0.1), key
        assert not layer.bias.any()
    bias: Any = block.get_submodule("attn.window_attn.attn_transform")
    assert bias.cpb_mlp[0].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert bias.logit_scale.flatten().tolist() == pytest.approx([math.log(10)] * 2)
    convolution: Any = network.layers.get_submodule("0.conv")
    largest = 1 / math.sqrt(64 * 9) * (0.1 if method[0] in "wt" else 1)
    assert convolution.weight.abs().max().item() == pytest.approx(largest, rel=0.05)
    norm: Any = block.get_submodule("norm1")
    assert norm.weight.unique().tolist() == [0.0 if method == "l" else 1.0]
    assert network.norm_end.weight.unique().tolist() == [1.0]
    assert block.get_submodule("").residual == (0.1 if method == "r" else 1.0)


# Precision ----------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[torch.dtype]]:
    """The precisions in which logits are made."""
    seen: set[torch.dtype] = set()
    real = F.scaled_dot_product_attention

    def spy(*qkv: Any, **more: Any) -> Tensor:
        assert not torch.is_autocast_enabled("cpu")
        seen.update(x.dtype for x in (*qkv, more["attn_mask"]))
        return real(*qkv, **more)

    monkeypatch.setattr(attention.F, "scaled_dot_product_attention", spy)
    yield seen


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_logits_stay_float32_under_autocast(asked: set[torch.dtype], low: torch.dtype) -> None:
    network = grl(local_connection=True, embed_dim=40)
    lq = noise((1, 3, 8, 16)).float()
    with torch.no_grad():
        exact = network.eval()(lq)
        with torch.autocast("cpu", low):
            rough = network(lq)
    assert asked == {torch.float32}
    assert 0 < (rough - exact).norm() / exact.norm() < 0.05
    with torch.autocast("cpu", low):
        loss = network.train()(lq).float().square().mean()
    loss.backward()
    assert asked == {torch.float32}
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
        assert bool(torch.isfinite(parameter.grad).all()), name
    with torch.no_grad():
        assert torch.equal(network.eval()(lq), exact)  # nothing rounded stays behind


def test_a_network_in_half_precision_runs_at_any_size(asked: set[torch.dtype]) -> None:
    network = grl().eval()
    lq = noise((1, 3, 9, 14)).float()
    with torch.no_grad():
        exact = network(lq)
        rough = network.bfloat16()(lq.bfloat16())
    assert rough.dtype == torch.bfloat16 and asked == {torch.float32}
    assert (rough.float() - exact).norm() / exact.norm() < 0.1


# Compilation --------------------------------------------------------------------------------------


def test_a_block_compiles_whole() -> None:
    """Without graph breaks, in training: same output and gradients."""
    network = grl(drop_path_rate=0.0)
    block = network.layers.get_submodule("0.blocks.2")  # shifts its windows and its stripes
    cells = tables.geometry(network.options, 4, 8, network.conv_first.weight)
    x = noise((1, 4, 8, 16)).float().requires_grad_()
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    found, expected = compiled(x, cells), block(x, cells)
    assert near(found, expected, 1e-6)
    ours, theirs = (
        torch.autograd.grad(y.square().sum(), [x, *block.parameters()]) for y in (found, expected)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert near(a, b, 1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Dynamo detected a call to a `functools.lru_cache`")
def test_a_network_compiles_whole() -> None:
    """Without graph breaks, in evaluation, at more than one size."""
    network = grl(depths=[1]).eval()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for size in ((8, 8), (9, 14)):
            lq = noise((1, 3, *size)).float()
            assert near(compiled(lq), network(lq), 1e-6)
