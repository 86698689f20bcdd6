"""The scan as custom ops (compile, export, autocast) and the choice of a backend."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from restore.errors import BackendError
from restore.ops.selective_scan import (
    available_backends,
    choice,
    library,
    mamba,
    map_scan,
    merge_directions,
    reference,
    selective_scan,
)
from restore.ops.selective_scan.backend import ScanInputs


def scan_inputs(
    steps: int = 17, dtype: torch.dtype = torch.float32, grad: bool = False
) -> tuple[Tensor, ...]:
    """u, delta, A, B, C, D, delta_bias: batch 2, 2 groups of 3 channels, 4 states."""
    torch.manual_seed(0)
    shapes = [(2, 6, steps)] * 2 + [(6, 4)] + [(2, 2, 4, steps)] * 2 + [(6,)] * 2
    tensors = [torch.randn(shape).to(dtype) for shape in shapes]
    tensors[2] = -tensors[2].abs()
    return tuple(t.requires_grad_(grad) for t in tensors)


def scan(inputs: Sequence[Tensor | None], softplus: bool = False, backend: str = "auto") -> Tensor:
    """`selective_scan` of the seven inputs in order."""
    u, delta, A, B, C, D, bias = inputs
    assert u is not None and delta is not None
    assert A is not None and B is not None and C is not None
    return selective_scan(u, delta, A, B, C, D, delta_bias=bias, softplus=softplus, backend=backend)


def map_inputs(pixels: int = 20, grad: bool = False) -> tuple[Tensor, ...]:
    """x, projected, order, step_weight, step_bias, A, D: batch 2, 3 directions, 6 channels."""
    torch.manual_seed(0)
    shapes = [(2, pixels, 6), (2, pixels, 3, 2 + 8), (3, 6, 2), (3, 6), (3, 6, 4), (3, 6)]
    x, projected, *weights = (torch.randn(shape).requires_grad_(grad) for shape in shapes)
    order = torch.stack([torch.randperm(pixels) for _ in range(3)])
    return x, projected, order, *weights


def merge_inputs(pixels: int = 20, grad: bool = False) -> tuple[Tensor, ...]:
    """y, gate, z, weight, bias: batch 2, 3 directions, 6 channels."""
    torch.manual_seed(0)
    shapes = [(2, pixels, 3, 6), (2, 3, 6), (2, pixels, 6), (6,), (6,)]
    return tuple(torch.randn(shape).requires_grad_(grad) for shape in shapes)


class Block(nn.Module):
    """The three operations as a network uses them."""

    def __init__(self, backend: str = "auto") -> None:
        super().__init__()
        torch.manual_seed(1)
        self.backend = backend
        self.project = nn.Linear(6, 3 * (2 + 8), bias=False)
        self.step_weight = nn.Parameter(torch.randn(3, 6, 2))
        self.step_bias, self.skip = nn.Parameter(torch.randn(3, 6)), nn.Parameter(torch.ones(3, 6))
        self.log_decay = nn.Parameter(torch.rand(3, 6, 4))
        self.norm, self.out = nn.LayerNorm(6), nn.Linear(6, 6)

    def forward(self, x: Tensor, order: Tensor) -> Tensor:
        decay = -torch.exp(self.log_decay.float())
        rows = self.project(x).unflatten(2, (3, 10))
        y, mean = map_scan(
            x, rows, order, self.step_weight, self.step_bias, decay, self.skip,
            backend=self.backend,
        )  # fmt: skip
        gate = torch.sigmoid(mean)
        out = merge_directions(
            y, gate, x, self.norm.weight, self.norm.bias, self.norm.eps, backend=self.backend
        )
        return self.out(out)


# The ops ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backend", "dtype"), [("torch", torch.float32), ("auto", torch.bfloat16)])
def test_scan_is_a_proper_op(backend: str, dtype: torch.dtype) -> None:
    inputs = scan_inputs(dtype=dtype, grad=True)
    torch.library.opcheck(library.selective_scan, (*inputs, True, backend))
    torch.library.opcheck(library.selective_scan, (*inputs[:5], None, None, False, backend))
    plain = [t.detach() for t in inputs]
    torch.library.opcheck(library.selective_scan_backward, (plain[0], *plain, True, backend))


def test_map_ops_are_proper_ops() -> None:
    backend = "torch"
    torch.library.opcheck(library.map_scan, (*map_inputs(grad=True), backend))
    dy, dmean = torch.randn(2, 20, 3, 6), torch.randn(2, 3, 6)
    torch.library.opcheck(library.map_scan_backward, (dy, dmean, *map_inputs(), backend))
    torch.library.opcheck(library.merge_directions, (*merge_inputs(grad=True), 1e-5, backend))
    backward = (torch.randn(2, 20, 6), *merge_inputs(), 1e-5, backend)
    torch.library.opcheck(library.merge_directions_backward, backward)


@pytest.mark.parametrize(("backend", "dynamic"), [("torch", False), ("auto", True)])
def test_compiles_whole(backend: str, dynamic: bool) -> None:
    torch._dynamo.reset()
    block = Block(backend)
    compiled = torch.compile(block, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for pixels in (12, 20):
        x, _, order, *_ = map_inputs(pixels)
        found = []
        for form in (block, compiled):
            block.zero_grad(set_to_none=True)
            y = form(x, order)
            y.square().sum().backward()
            found.append([y.detach(), *(p.grad for p in block.parameters())])
        torch.testing.assert_close(found[0], found[1])


def test_exports_and_keeps_the_choice_for_later() -> None:
    block, (x, _, order, *_) = Block(), map_inputs()
    pixels = torch.export.Dim("pixels", min=2)
    program = torch.export.export(
        block, (x, order), dynamic_shapes={"x": {1: pixels}, "order": {1: pixels}}
    )
    calls = [n for n in program.graph.nodes if str(n.target).startswith("restore")]
    assert [str(n.target) for n in calls] == [
        "restore.map_scan.default", "restore.merge_directions.default",
    ]  # fmt: skip
    assert all(n.args[-1] == "auto" for n in calls)
    x, _, order, *_ = map_inputs(33)
    torch.testing.assert_close(program.module()(x, order), block(x, order))


@pytest.mark.parametrize("backend", ["reference", "torch", "auto"])
def test_autocast_does_not_reach_into_the_scan(backend: str) -> None:
    x, _, order, *_ = map_inputs()
    block = Block(backend)
    with torch.autocast("cpu", torch.bfloat16):
        y = block(x, order)
        assert y.dtype == torch.bfloat16
        values = scan_inputs()
        half = [t.bfloat16() if t.ndim > 2 else t for t in values]
        scanned = scan(half, True, backend)
        whole_map = map_scan(*map_inputs(), backend=backend)[0]
    y.float().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in block.parameters())
    assert scanned.dtype == torch.bfloat16
    exact = reference.selective_scan(*(t.float() for t in half), softplus=True)
    torch.testing.assert_close(scanned.float(), exact, rtol=1e-2, atol=1e-3)  # rounded once
    torch.testing.assert_close(whole_map, map_scan(*map_inputs(), backend=backend)[0])


@pytest.mark.parametrize("backend", ["reference", "torch", "auto"])
def test_second_derivatives_are_refused(backend: str) -> None:
    u, *rest = scan_inputs()
    u.requires_grad_()
    y = selective_scan(u, *rest[:4], backend=backend)
    (gradient,) = torch.autograd.grad(y.sum(), u, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()


def test_shapes_that_do_not_fit_are_told() -> None:
    u, delta, A, B, C, D, bias = scan_inputs()
    with pytest.raises(ValueError, match=r"C float32 \(2, 2, 4, 16\)"):
        selective_scan(u, delta, A, B, C[..., 1:], D, delta_bias=bias)
    for wrong in (
        (u[0], delta, A, B, C, D), (u, delta[:, 1:], A, B, C, D), (u, delta, A[1:], B, C, D),
        (u, delta, A, B[:, 0], C, D), (u, delta, A, B, C, D[1:]),
        (u[..., :0], delta[..., :0], A, B[..., :0], C[..., :0], D), (u, delta, A[:, :0], B, C, D),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="selective_scan: shapes do not fit"):
            selective_scan(*wrong)
    with pytest.raises(ValueError, match="selective_scan"):  # 5 channels in 2 groups
        selective_scan(u[:, 1:], delta[:, 1:], A[1:], B, C, D[1:])
    x, projected, order, *weights = map_inputs()
    for wrong in ((x[:, 1:], projected, order), (x, projected, order.int())):
        with pytest.raises(ValueError, match="map_scan: shapes"):
            map_scan(*wrong, *weights)
    y, gate, *rest = merge_inputs()
    with pytest.raises(ValueError, match="merge_directions: shapes"):
        merge_directions(y, gate[:, 1:], *rest)


# The choice ---------------------------------------------------------------------------------------


@pytest.fixture
def fresh_choice(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No choice remembered from before, none left behind."""
    monkeypatch.delenv(choice.OVERRIDE, raising=False)
    for remembered in (choice.missing, choice._chosen):
        remembered.cache_clear()
    yield
    for remembered in (choice.missing, choice._chosen):
        remembered.cache_clear()


def without(monkeypatch: pytest.MonkeyPatch, name: str, reason: str) -> None:
    """As on a machine where a backend's probe answers `reason`."""
    entry = choice.BACKENDS[name]
    module = ModuleType("absent_backend")
    module.unavailable = lambda: reason  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, entry.module, module)
    choice.missing.cache_clear()


def test_auto_says_its_choice_and_the_reason_once(
    fresh_choice: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without(monkeypatch, "cpu", "no C++ compiler")
    with caplog.at_level(logging.INFO, "restore"):
        for _ in range(3):
            scan(scan_inputs())
    assert caplog.messages == [
        "selective scan on cpu in float32: backend torch; cpu would be faster, but no C++ compiler"
    ]
    assert "cpu" not in available_backends()


def test_auto_in_float64_is_the_torch_backend(
    fresh_choice: None, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "restore"):
        scan(scan_inputs(dtype=torch.float64))
    assert caplog.messages[0].startswith("selective scan on cpu in float64: backend torch")


def test_absent_backend_by_name_is_refused_with_the_way_to_get_it(
    fresh_choice: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, remedy in (("cpu", "compiler"), ("mamba_ssm", "pip install mamba-ssm")):
        without(monkeypatch, name, "not here")
        with pytest.raises(
            BackendError, match=rf"ENV30.*{name} \(not here\).*fix: .*{remedy}"
        ) as e:
            scan(scan_inputs(), backend=name)
        assert "torch" in str(e.value)


def test_unknown_backend_is_refused_with_the_nearest(fresh_choice: None) -> None:
    with pytest.raises(BackendError, match="ENV30.*backend.*tritn.*did you mean 'triton'"):
        scan(scan_inputs(), backend="tritn")


def test_the_environment_stands_in_for_auto(
    fresh_choice: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(choice.OVERRIDE, "reference")
    device = torch.device("cpu")
    taken = choice.chosen("auto", device, torch.float32)
    assert taken is choice.chosen("reference", device, torch.float32)
    assert taken is not choice.chosen("torch", device, torch.float32)  # a name wins
    monkeypatch.setenv(choice.OVERRIDE, "fastest")
    with pytest.raises(BackendError, match="RESTORE_SCAN_BACKEND.*fastest"):
        scan(scan_inputs())


def test_a_backend_of_other_tensors_is_refused(
    fresh_choice: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_function(monkeypatch)
    with pytest.raises(BackendError, match="ENV31.*mamba_ssm for float32 on cpu.*cuda only"):
        scan(scan_inputs(), backend="mamba_ssm")
    assert choice._refusal("mamba_ssm", "cuda", True) == "it computes in float32 only"


# The adapter to mamba-ssm -------------------------------------------------------------------------


class StandIn:
    """Speaks as mamba-ssm's SelectiveScanFn does, and insists on what its kernel insists on."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None,
        z: Tensor | None, delta_bias: Tensor | None, delta_softplus: bool,
    ) -> Tensor:  # fmt: skip
        given = (u, delta, A, B, C, D, delta_bias)
        for tensor in given:
            assert tensor is None or (tensor.dtype, tensor.stride(-1)) == (torch.float32, 1)
        assert z is None and B.shape[1] == 2 and A.shape[1] <= 256
        ctx.save_for_backward(*given)
        ctx.delta_softplus = delta_softplus
        return reference.selective_scan(*given, delta_softplus)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        from_reference = choice.locate(f"{choice.BACKENDS['reference'].module}:BACKEND")
        inputs = ScanInputs(*ctx.saved_tensors, ctx.delta_softplus)
        grads = from_reference.scan_grads(dy, inputs)
        return *grads[:6], None, grads[6], None, None


def with_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where mamba-ssm is installed beside a GPU."""
    interface = SimpleNamespace(SelectiveScanFn=StandIn)
    monkeypatch.setitem(sys.modules, mamba.INTERFACE, interface)  # type: ignore[arg-type]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    mamba._function.cache_clear()


@pytest.fixture
def mamba_installed(fresh_choice: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with_function(monkeypatch)
    entry = choice.Entry(choice.BACKENDS["mamba_ssm"].module, "", ("cpu",))
    monkeypatch.setitem(choice.BACKENDS._entries, "mamba_ssm", entry)  # the stand-in needs no GPU
    yield
    mamba._function.cache_clear()


@pytest.mark.parametrize("given", [7, 5])
def test_mamba_adapter(mamba_installed: None, given: int) -> None:
    inputs = [*scan_inputs(dtype=torch.bfloat16, grad=True)[:given], None, None][:7]
    found = []
    for backend in ("mamba_ssm", "reference"):
        y = selective_scan(*inputs[:6], delta_bias=inputs[6], softplus=True, backend=backend)  # type: ignore[arg-type]
        wanted = [t for t in inputs if t is not None]
        found.append([y, *torch.autograd.grad(y.float().square().sum(), wanted)])
    torch.testing.assert_close(found[0], found[1])


def test_mamba_adapter_scans_maps(mamba_installed: None) -> None:
    x, projected, order, *weights = map_inputs()
    half = order[:2], *(t[:2].contiguous() for t in weights)
    ours = map_scan(x, projected[:, :, :2], *half, backend="mamba_ssm")
    truth = map_scan(x, projected[:, :, :2], *half, backend="reference")
    torch.testing.assert_close(ours, truth)


def test_mamba_adapter_refuses_more_than_256_states(mamba_installed: None) -> None:
    u = torch.rand(1, 2, 3)
    rows = torch.rand(1, 2, 257, 3)
    with pytest.raises(BackendError, match="ENV31.*257 states"):
        selective_scan(u, u, -torch.rand(2, 257), rows, rows, backend="mamba_ssm")
