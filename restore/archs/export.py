"""Floor 3. Networks as files that run without this package: ONNX, torch.export, TorchScript.

One form serves all: whole images of any height and width go in; the padding that the network needs
and the cropping of its output are part of the graph. An image is `(1, C, h, w)` float32 in [0, 1],
the result `(1, C', h·s, w·s)` float32, not clamped.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from restore import __version__
from restore.archs.architecture import SizeRule
from restore.archs.build import fuse
from restore.archs.layers import mirrored, rounded_up
from restore.archs.table import architecture_of
from restore.catalog import Catalog, locate
from restore.errors import BackendError, OptionError
from restore.ops.selective_scan.standard import standard_operators
from restore.section import Section

OPSET = 18
"""ONNX operator set: the first with all that is used here, five years of runtimes know it."""
INPUT, OUTPUT = "lq", "restored"
TOLERANCE = 1e-4
Run = Callable[[Tensor], Tensor]


class ExportForm(nn.Module):
    """A network in deploy form as its file holds it; see the head of this file."""

    def __init__(self, network: nn.Module, size: SizeRule, scale: int) -> None:
        super().__init__()
        own: Callable[[], nn.Module] | None = getattr(network, "for_export", None)
        self.network = (fuse(network) if own is None else own()).eval().requires_grad_(False)
        self.size, self.scale = size, scale
        self.unit: int = max(size.minimum, size.multiple, getattr(self.network, "unit", 1))
        """What sides are padded to multiples of, in this form or inside the network."""

    def forward(self, lq: Tensor) -> Tensor:
        height, width = lq.shape[2], lq.shape[3]
        if self.size == SizeRule():
            return _finest(self.network(lq))
        for dim in (2, 3):
            lq = mirrored(lq, dim, self._places(lq.shape[dim], lq.device))
        output = _finest(self.network(lq))
        # by index: torch.export would ask for proof that the padded side is the larger one
        rows = torch.arange(height * self.scale, device=lq.device)
        columns = torch.arange(width * self.scale, device=lq.device)
        return output.index_select(2, rows).index_select(3, columns)

    def _places(self, side: Any, device: torch.device) -> Tensor:
        multiple, least = self.size.multiple, -(-self.size.minimum // self.size.multiple)
        return torch.arange(rounded_up(side, multiple, least) * multiple, device=device)


def _finest(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def export_form(network: nn.Module, options: Section) -> ExportForm:
    """The form of `network` that is exported. Raises BackendError ENV42 where it has none."""
    architecture = architecture_of(options)
    return ExportForm(network, architecture.size, architecture.scale(options))


def example_sizes(unit: int) -> tuple[tuple[int, int], ...]:
    """Three (height, width) of no particular shape, of one and of two units a side."""
    side = max(unit, 24)
    return (side + 13, 2 * side - 3), (side, side + side // 2), (2 * side - 1, side - 5)


def example_image(channels: int, size: tuple[int, int]) -> Tensor:
    """`(1, C, h, w)`: an image with edges and gradients, the same at every call."""
    rng = np.random.default_rng(size)
    rows, columns = (np.linspace(0, 1, side)[:, None] for side in size)
    phase = rng.uniform(0, 6, (channels, 1, 1))
    waves = np.sin(9 * rows + 7 * columns.T + phase) + (rng.random((channels, *size)) - 0.5)
    return torch.from_numpy(np.clip(0.5 + 0.4 * waves, 0, 1).astype(np.float32))[None]


@dataclass(frozen=True)
class Target:
    """One kind of file."""

    suffix: str
    write: Callable[[ExportForm, Tensor, Path, Mapping[str, Any]], None]
    read: Callable[[Path], Run]
    needs: tuple[str, ...] = ()
    """Optional packages."""


@contextlib.contextmanager
def _quiet() -> Generator[None, None, None]:
    """Without what exporters tell their developers: logs, warnings, whole graphs."""
    unseen, before = io.StringIO(), logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(unseen):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(unseen):
                yield
    finally:
        logging.disable(before)


def _program(form: ExportForm, image: Tensor) -> Any:
    """`form` as a torch.export program with a free height and width."""
    free = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    with torch.no_grad():
        return torch.export.export(form, (image,), dynamic_shapes={INPUT: free}, strict=False)


def _write_program(form: ExportForm, image: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    torch.export.save(_program(form, image), path, extra_files={"restore.json": json.dumps(about)})


def _read_program(path: Path) -> Run:
    return torch.export.load(path).module()


def _write_onnx(form: ExportForm, image: Tensor, path: Path, about: Mapping[str, Any]) -> None:
    recurrence = locate("restore.ops.selective_scan.onnx_form:recurrence")
    with standard_operators():
        program = _program(form, image)
    exported: Any = torch.onnx.export(
        program,
        (image,),
        dynamo=True,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=[OUTPUT],
        custom_translation_table={torch.ops.restore.recurrence.default: recurrence},
        verbose=False,
    )
    exported.model.metadata_props["restore"] = json.dumps(about)
    exported.save(path, external_data=False)
    locate("onnx:checker").check_model(str(path))


def _read_onnx(path: Path) -> Run:
    session = locate("onnxruntime:InferenceSession")(path, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> Tensor:
        return torch.from_numpy(session.run([OUTPUT], {INPUT: image.numpy()})[0])

    return run


def _write_torchscript(
    form: ExportForm, image: Tensor, path: Path, about: Mapping[str, Any]
) -> None:
    with standard_operators(), torch.no_grad():
        traced: Any = torch.jit.trace(form, (image,), check_trace=False)
    torch.jit.save(traced, str(path), _extra_files={"restore.json": json.dumps(about)})


def _read_torchscript(path: Path) -> Run:
    return torch.jit.load(str(path))


TARGETS: Catalog[Target] = Catalog(
    "export target",
    {
        "onnx": Target(".onnx", _write_onnx, _read_onnx, ("onnx", "onnxscript", "onnxruntime")),
        "torch-export": Target(".pt2", _write_program, _read_program),
        "torchscript": Target(".ts", _write_torchscript, _read_torchscript),
    },
)


def require(target: str, suffix: str) -> None:
    """Raises BackendError ENV40 without the packages of `target`, OptionError for a suffix."""
    for package in TARGETS[target].needs:
        if importlib.util.find_spec(package) is None:
            raise BackendError.of(
                "ENV40", "a package for this export is not installed", f"--to {target}",
                f"no {package}", " ".join(TARGETS[target].needs),
                "pip install onnx onnxscript onnxruntime, or --to torch-export",
            )  # fmt: skip
    if suffix != TARGETS[target].suffix:
        raise OptionError.of(
            "OPT43", "unknown kind of file", "OUT", repr(suffix),
            f"'{TARGETS[target].suffix}' for {target}", "choose another name",
        )  # fmt: skip


def write(
    form: ExportForm, target: str, path: Path, channels: int, about: Mapping[str, Any]
) -> None:
    """Write `form` to `path`; `about` (plain values) goes into the file, with our version.

    Raises BackendError ENV41 for a network that the target cannot hold.
    """
    image = example_image(channels, example_sizes(form.unit)[0])
    try:
        with _quiet():
            TARGETS[target].write(form, image, path, {"version": __version__, **about})
    except Exception as error:  # exporters raise whatever a network makes them raise
        others = ", ".join(name for name in TARGETS if name != target)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise BackendError.of(
            "ENV41", "this network cannot be exported so", f"--to {target}", reason,
            "a graph for every height and width", f"another target: {others}",
        ) from error  # fmt: skip


def read(target: str, path: Path) -> Run:
    """The file's own network, run by its own runtime on the CPU."""
    return TARGETS[target].read(path)


def differences(run: Run, truth: Run, channels: int, unit: int) -> Iterator[tuple[str, float]]:
    """(size, largest absolute difference) of two ways to restore an image, at three sizes."""
    for height, width in example_sizes(unit):
        image = example_image(channels, (height, width))
        with torch.no_grad():
            own, other = run(image), truth(image)
        same = own.shape == other.shape
        yield f"{width}×{height}", float((own - other).abs().max()) if same else float("inf")
