"""Compiles every Triton kernel for an H200 (sm_90), which needs no GPU; prints JSON, a line each.

`test_selective_scan_triton.py` runs this file, in a process where Triton does not interpret.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from restore.ops.selective_scan import (
    triton_kernels,
    triton_kernels_backward,
    triton_kernels_merge,
)
from restore.ops.selective_scan.triton_backend import SEGMENTS_AT_ONCE, merge_tile
from restore.ops.selective_scan.triton_problem import CHANNELS, STEPS

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
TILE = {"T": STEPS, "BE": CHANNELS}
MAP = {"RANK": 12, "STATES": 16, "SOFTPLUS": True, "ORDERED": True, "WIDE": False, **TILE}
PLAIN = {**MAP, "RANK": 0, "ORDERED": False, "WIDE": True}
ROWS, WIDTH = merge_tile(360)
MERGED = {"E": 360, "ROWS": ROWS, "BE": WIDTH}
OUTPUTS = {"FROM_ZERO": False, "OUTPUT": True, "BORDERS": False}
BORDERS = {"FROM_ZERO": True, "OUTPUT": False, "BORDERS": True}
STARTS = {"STATES": 16, "BACKWARDS": True, "ROWS": SEGMENTS_AT_ONCE, "BE": CHANNELS}

KERNELS: list[tuple[str, Any, dict[str, Any], int]] = [
    ("map outputs", triton_kernels.scan_kernel, {**MAP, **OUTPUTS, "SHARED": True}, 1),
    ("map borders", triton_kernels.scan_kernel, {**MAP, **BORDERS, "SHARED": True}, 1),
    ("plain outputs", triton_kernels.scan_kernel, {**PLAIN, **OUTPUTS, "SHARED": False}, 1),
    ("starts", triton_kernels.start_kernel, STARTS, 1),
    ("adjoint", triton_kernels_backward.adjoint_kernel, MAP, 1),
    ("map gradients", triton_kernels_backward.gradient_kernel, {**MAP, "SHARED": True}, 1),
    ("plain gradients", triton_kernels_backward.gradient_kernel, {**PLAIN, "SHARED": False}, 1),
    ("merge", triton_kernels_merge.merge_kernel, MERGED, 4),
    ("merge gradients", triton_kernels_merge.merge_gradient_kernel, MERGED, 4),
]

# Triton compiles an argument that is 1 as a constant: one step, one channel, one of everything.
ONES = ("B", "L", "E", "K", "blocks", "segments", "tiles", "parts")


def kind(argument: str, constants: dict[str, Any]) -> str:
    """What Triton calls the type of an argument."""
    if argument in constants:
        return "constexpr"
    if argument.endswith("_ptr"):
        return "*i64" if argument == "order_ptr" else "*fp32"
    return "fp32" if argument == "eps" else "i32"


def compiled(kernel: Any, constants: dict[str, Any], warps: int) -> Any:
    """For an H200, with all pointers aligned to 16 bytes, as torch's are."""
    names = kernel.arg_names
    source = ASTSource(
        kernel,
        {name: kind(name, constants) for name in names},
        {(names.index(name),): value for name, value in constants.items()},
        {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if n.endswith("_ptr")},
    )
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})


def resources(kernel: Any) -> dict[str, int]:
    """Registers and stack bytes of a thread, and how many shuffles the machine code has."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.run([*tool, file.name], capture_output=True, text=True, check=True).stdout
            for tool in (
                [TOOLS / "cuobjdump", "--dump-resource-usage"],
                [TOOLS / "nvdisasm", "--no-dataflow"],
            )
        )
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    registers, stack = map(int, found.groups())
    return {"registers": registers, "stack": stack, "shuffles": len(re.findall("SHFL", code))}


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TRITON_CACHE_DIR"] = cache
        for name, kernel, constants, warps in KERNELS:
            facts = resources(compiled(kernel, constants, warps))
            print(json.dumps({"kernel": name, **facts}), flush=True)
            ones = {name: 1 for name in ONES if name in kernel.arg_names}
            compiled(kernel, {**ones, **constants}, warps)


if __name__ == "__main__":
    main()
