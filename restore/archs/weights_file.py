"""Floor 3. Weights files read safely: whatever the bytes, nothing in a file runs.

A `.pth`, `.pkl` or `.ckpt` is read with torch's tensors-only unpickler and never otherwise. What
trainers leave beside the tensors (settings, scores, paths) becomes inert stand-ins.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from restore.archs.weights_bombs import refuse_bombs, runs_code
from restore.errors import WeightsError


class Inert:
    """Stands for an object of another program: takes whatever it is given, keeps and does nothing.

    So a checkpoint's settings and scores do not keep its tensors from being read, although neither
    their classes nor numpy's are ever imported or called for it.
    """

    def __init__(self, *_: object) -> None:
        pass

    def __new__(cls, *_: object) -> Inert:
        return object.__new__(cls)

    def __setstate__(self, _: object) -> None:
        pass


class _PlainDict:
    """Stands for a kind of dict: what is made is a dict, filled by the unpickler itself."""

    def __new__(cls, *_: object) -> dict[Any, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return {}


_NUMPY = ("numpy._core.multiarray", "numpy.core.multiarray")
_NODES = ("Any", "Boolean", "Enum", "Float", "Integer", "Path", "String")
_STANDS_FOR: dict[type, tuple[str, ...]] = {
    Inert: (
        "argparse.Namespace",
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        "omegaconf.base.ContainerMetadata",
        "omegaconf.base.Metadata",
        *(f"omegaconf.nodes.{kind}Node" for kind in _NODES),
        "typing.Any",
        *(f"builtins.{kind}" for kind in ("list", "tuple", "int", "float", "str", "bool")),
        *(f"pathlib.{kind}Path" for kind in ("Posix", "Windows", "PurePosix", "PureWindows")),
        *(f"pathlib._local.{kind}Path" for kind in ("Posix", "Windows")),
        *(f"{module}.{name}" for module in _NUMPY for name in ("scalar", "_reconstruct")),
        "numpy.dtype",
        "numpy.ndarray",
        "torch.torch_version.TorchVersion",
    ),
    _PlainDict: (
        "builtins.dict",
        "collections.defaultdict",
        "lightning_fabric.utilities.data.AttributeDict",
        "lightning.fabric.utilities.data.AttributeDict",
        "pytorch_lightning.utilities.parsing.AttributeDict",
    ),
}
STAND_INS: list[Any] = [
    (stand_in, name) for stand_in, names in _STANDS_FOR.items() for name in names
]


def check_sha256(path: str | os.PathLike[str], wanted: str) -> str:
    """The sha256 of a file's bytes. Raises WeightsError WGT08 where it is not `wanted`.

    `wanted` may be shortened to its first digits (at least 8), as torch.hub writes it in names.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{8,64}", wanted):
        raise WeightsError.of(
            "WGT08",
            "not a sha256",
            "--sha256",
            wanted,
            "8 to 64 hexadecimal digits",
            "copy it from where the weights are published",
        )
    found = file_sha256(path)
    if not found.startswith(wanted.lower()):
        raise WeightsError.of(
            "WGT08",
            "another file than expected",
            os.fspath(path),
            f"sha256 {found}",
            wanted,
            "download it again from the source that states this sum",
        )
    return found


def file_sha256(path: str | os.PathLike[str]) -> str:
    """sha256 of a file's bytes. Raises WeightsError WGT05 for a file that cannot be read."""
    try:
        with open(path, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _no_file(os.fspath(path), error) from None


def _no_file(name: str, error: OSError) -> WeightsError:
    return WeightsError.of(
        "WGT05",
        "no weights file",
        name,
        str(error.strerror).lower().replace(" or directory", ""),
        "a .pth or .safetensors file",
        "check the path",
    )


def read_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a weights file (tensors and plain containers), on the CPU.

    Raises WeightsError for a file that is missing, empty, cut short, compressed, larger than what
    it stores, or that holds anything but tensors and plain containers.
    """
    file, name = Path(path), os.fspath(path)
    try:
        with file.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise _no_file(name, error) from None
    if not head:
        raise WeightsError.of(
            "WGT05",
            "weights file is empty",
            name,
            "0 bytes",
            "a .pth or .safetensors file",
            "download it again",
        )
    if head.lstrip()[:1] == b"<" and b"\0" not in head:  # safetensors: a length, zeros in it
        raise WeightsError.of(
            "WGT05",
            "not a weights file",
            name,
            f"starts with {head[:16]!r}",
            "a .pth or .safetensors file",
            "download the file, not its web page",
        )
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    return _read_pickle(file)


def _read_safetensors(file: Path) -> dict[str, Any]:
    try:
        return dict(safetensors.torch.load_file(file))
    except safetensors.SafetensorError as error:
        raise WeightsError.of(
            "WGT04",
            "damaged safetensors file",
            str(file),
            str(error),
            "a whole file",
            "copy or download it again",
        ) from None


def _read_pickle(file: Path) -> dict[str, Any]:
    name = str(file)
    try:
        refuse_bombs(file)
        with torch.serialization.safe_globals(STAND_INS):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except WeightsError:
        raise
    except Exception as error:  # both readers raise whatever the bytes make them raise
        text = str(error)
        blocked = re.search(r"(?:GLOBAL|global) (\S+)", text)
        if blocked:
            raise runs_code(name, blocked.group(1)) from None
        reason = text.partition("WeightsUnpickler error: ")[2].lstrip() or text or "nothing said"
        raise WeightsError.of(
            "WGT04",
            "weights file is damaged or cut short",
            name,
            f"{type(error).__name__}: {reason.splitlines()[0][:120]}",
            "a whole file from torch.save",
            "copy or download it again",
        ) from None
    if not isinstance(content, Mapping):
        raise WeightsError.of(
            "WGT03",
            "weights file holds no state dict",
            name,
            type(content).__name__,
            "a dict of tensors",
            "save network.state_dict()",
        )
    for key, tensor in _tensors(content):
        dense = tensor.layout == torch.strided and tensor.device.type == "cpu"
        size = tensor.numel() * tensor.element_size()
        if not dense or size > tensor.untyped_storage().nbytes():
            raise WeightsError.of(
                "WGT06",
                "tensor larger than what is stored",
                name,
                f"{key} {tuple(tensor.shape)}",
                "every element stored",
                "save it again with .contiguous()",
            )
    return dict(content)


def _tensors(content: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    """Every tensor in nested mappings; a mapping that holds itself is looked into once."""
    found: list[tuple[str, Tensor]] = []
    waiting, seen = [content], {id(content)}
    for mapping in waiting:
        for key, value in mapping.items():
            if isinstance(value, Tensor):
                found.append((str(key), value))
            elif isinstance(value, Mapping) and id(value) not in seen:
                waiting.append(value)
                seen.add(id(value))
    return found
