"""The 102 bad inputs of the project's table, each given to the real command.

A row is the answer that a user gets: the whole of it, on stderr, with its exit code, without a
traceback, and with every file of the working folder as it was. `planned` is the code that the
table proposed, where ours is another one. Some inputs are right here; their rows say so.
"""

from __future__ import annotations

import argparse
import ast
import errno
import io
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from restore import images, world
from restore.archs import build_network
from restore.archs.options import SpanOptions
from restore.archs.table import ARCHS
from restore.commands.main import main
from restore.errors import BackendError
from restore.evaluation.precision import check_precision
from restore.losses.options import LOSSES
from restore.options import MAX_BYTES
from restore.section import Section
from restore.training import checkpoint
from restore.training.options import Adam

from helpers import TINY_TRAIN

TESTS = Path(__file__).parent
TRAIN = ("train", "-opt", "tiny.yml", "--set", "num_gpu=0")
ONE_STEP = (*TRAIN, "train.total_iter=1", "train.scheduler.milestones=[]")
WEIGHTS = (*TRAIN, "path.pretrain_network_g=net.pth")
GOOD_WEIGHTS = (*ONE_STEP, "path.pretrain_network_g=net.pth")
RNG = np.random.default_rng(0)
LQ = RNG.integers(0, 256, (32, 32, 3), dtype=np.uint8)
GT = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)


def names(known: Iterable[str]) -> str:
    return ", ".join(sorted(known))


def keys(section: type[Section]) -> str:
    return ", ".join(section.model_fields)


@dataclass(frozen=True)
class Bad:
    """An input that is refused: what makes it, the command, the whole answer, the exit code."""

    make: Callable[[], object]
    answer: str
    command: tuple[str, ...] = TRAIN
    planned: str = ""
    exit: int = 2
    patch: Callable[[pytest.MonkeyPatch], None] | None = None


@dataclass(frozen=True)
class Good:
    """An input that is taken, with the line that says so."""

    make: Callable[[], object]
    says: str
    command: tuple[str, ...] = ONE_STEP
    planned: str = ""


@dataclass(frozen=True)
class Elsewhere:
    """An input whose test stands in another file, because of what it takes to make it."""

    test: str
    planned: str = ""


# What makes the inputs ----------------------------------------------------------------------------


def text(old: str, new: str) -> Callable[[], None]:
    """`tiny.yml` with `new` for `old`."""

    def make() -> None:
        assert TINY_TRAIN.count(old) == 1
        Path("tiny.yml").write_text(TINY_TRAIN.replace(old, new))

    return make


def file(name: str, data: bytes | Callable[[], bytes]) -> Callable[[], None]:
    """A file of these bytes, in the place of another of the same stem."""

    def make() -> None:
        for other in Path(name).parent.glob(f"{Path(name).stem}.*"):
            other.unlink()
        Path(name).write_bytes(data() if callable(data) else data)

    return make


def nothing() -> None:
    """The input is in the command or the environment."""


def pil(image: np.ndarray | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """An image as Pillow writes it."""
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="rgb")
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_header(width: int, height: int, *more: bytes) -> bytes:
    """A PNG that promises so many pixels and holds next to none."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", zlib.compress(b"tiny"))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def flipped(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 8
    return bytes(changed)


def turned(data: np.ndarray) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return pil(data, "JPEG", exif=exif)


def paletted() -> bytes:
    image = Image.fromarray(LQ).convert("P", palette=Image.Palette.ADAPTIVE)
    return pil(image, transparency=bytes([0]) + bytes([255]) * 255)


def with_alpha(least: int) -> bytes:
    alpha = np.full((32, 32, 1), 255, np.uint8)
    alpha[0, 0] = least
    return pil(np.concatenate([LQ, alpha], axis=2))


def not_a_number() -> bytes:
    values = np.full((32, 32, 3), 0.5, np.float32)
    values[3, 4] = np.nan
    return tiff(values)


def linked() -> None:
    Path("experiments").mkdir()
    Path("elsewhere").mkdir()
    Path("experiments/tiny").symlink_to(Path("elsewhere").resolve())


def existing() -> None:
    Path("experiments/tiny").mkdir(parents=True)
    Path("experiments/tiny/train.log").write_text("much work\n")


def listed() -> None:
    Path("meta.txt").write_text("a.png (64,64,3)\n../../etc/passwd\n")
    text("gt_size: 32", "gt_size: 32\n    meta_info_file: meta.txt")()


def renamed(new: str, folder: str = "lq") -> Callable[[], None]:
    return lambda: os.rename(f"{folder}/b.png", f"{folder}/{new}")


def pair(name: str) -> Callable[[], None]:
    """The second pair, in files of this name."""

    def make() -> None:
        renamed(name, "gt")()
        renamed(name)()

    return make


def emptied() -> None:
    for image in Path("lq").iterdir():
        image.unlink()


def resized(name: str, side: int) -> Callable[[], None]:
    return lambda: images.write(name, RNG.integers(0, 256, (side, side, 3), dtype=np.uint8))


def state(upscale: int = 2, channels: int = 8) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    options = {"type": "SPAN", "feature_channels": channels, "upscale": upscale}
    return build_network(options).state_dict()


def saved(content: Callable[[], object], **how: Any) -> Callable[[], None]:
    """`net.pth` of this content."""
    return lambda: torch.save(content(), "net.pth", **how)


class Bomb:
    """Makes the folder `owned` when a careless reader unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("owned",)


def nested() -> None:
    inner = io.BytesIO()
    torch.save({"params": Bomb()}, inner)
    torch.save({"params": state(), "meta": {"more": [inner.getvalue(), Bomb()]}}, "net.pth")


def without_last(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(list(state.items())[:-1])


def not_finite() -> dict[str, torch.Tensor]:
    found = state()
    found["conv_1.sk.bias"][0] = float("nan")
    return found


def cut_weights() -> None:
    torch.save({"params": state()}, "net.pth")
    Path("net.pth").write_bytes(Path("net.pth").read_bytes()[:-5000])


def deflated() -> None:
    torch.save({"params": state()}, "whole.pth")
    with (
        zipfile.ZipFile("whole.pth") as old,
        zipfile.ZipFile("net.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.namelist():
            new.writestr(entry, old.read(entry))


def trained() -> None:
    """A run that has saved its first step."""
    assert main(list(ONE_STEP)) == 0


def newer_schema() -> None:
    with_state(lambda numbers: numbers.update(schema=99))


def with_state(change: Callable[[dict[str, Any]], object]) -> None:
    trained()
    folder = Path("experiments/tiny/checkpoints/step_00000001")
    numbers = json.loads((folder / "state.json").read_text())
    change(numbers)
    (folder / "state.json").write_text(json.dumps(numbers))
    sealed(folder)


def sealed(folder: Path) -> None:
    """A manifest that fits what is in the folder."""
    files = [f for f in folder.iterdir() if f.name != "MANIFEST.json"]
    about = {f.name: {"bytes": f.stat().st_size, "sha256": checkpoint.sha256(f)} for f in files}
    (folder / "MANIFEST.json").write_text(json.dumps(about))


def other_optimiser() -> None:
    trained()
    folder = Path("experiments/tiny/checkpoints/step_00000001")
    moments = {"exp_avg/body.0.weight": torch.zeros(1)}
    checkpoint.write_safetensors(folder / "optim.safetensors", moments, {})
    sealed(folder)


# What makes the environments ----------------------------------------------------------------------


def environment(**more: str) -> Callable[[pytest.MonkeyPatch], None]:
    """What torchrun sets for one process, and what is wrong in it."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", **more}.items():
            monkeypatch.setenv(name, value)

    return patch


def gpus(count: int, **more: str) -> Callable[[pytest.MonkeyPatch], None]:
    """A machine of that many GPUs."""

    def no_driver() -> None:
        raise RuntimeError("Found no NVIDIA driver on your system. Please check that you have one")

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        if not count:
            monkeypatch.setattr(torch.cuda, "init", no_driver)
            monkeypatch.setattr(torch, "__version__", "2.13.0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        if more:
            environment(**more)(monkeypatch)

    return patch


def locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of others (root, who runs some tests, may read any)."""
    scandir = os.scandir

    def refuses(path: str) -> Any:
        if path == "lq":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuses)


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk without room."""
    room = shutil.disk_usage(".")._replace(free=9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: room)


def failing_write(number: int) -> Callable[[pytest.MonkeyPatch], None]:
    """A disk that refuses what is written (root, who runs some tests, may write anywhere)."""

    def fails(path: Path, *rest: object) -> None:
        raise OSError(number, os.strerror(number))

    return lambda monkeypatch: monkeypatch.setattr(checkpoint, "write_safetensors", fails)


# The table ----------------------------------------------------------------------------------------

RESUME = (*ONE_STEP, "train.total_iter=2", "--auto_resume")
BOMB = "a0: &a0 [1, 1]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9)
)
RANKS = (*TRAIN, "--launcher", "pytorch")
LONG = "x" * 251
PACKED = zlib.compress(bytes(9 << 20))
TEXT = chunk(b"zTXt", b"k\0\0" + PACKED)
CUT_PNG, CUT_JPEG = pil(LQ)[:-200], pil(LQ, "JPEG")[:-200]
FRAMES = [Image.new("P", (32, 32), colour) for colour in (0, 1)]
FORGED = "b\nerror[IMG01]: forged.png"
STRIDED = {"params": {"w": torch.zeros(1).expand(10**10)}}

ROWS: dict[int, Bad | Good | Elsewhere] = {
    # Option files
    1: Bad(
        nothing,
        "error[OPT01]: option file not found (nope.yml): got no such file; expected "
        "a YAML file; fix: check the path after -opt",
        ("train", "-opt", "nope.yml"),
    ),
    2: Bad(
        lambda: Path("options").mkdir(),
        "error[OPT02]: the option file is a directory (options): got a directory; "
        "expected a YAML file; fix: name a file inside it",
        ("train", "-opt", "options"),
    ),
    3: Bad(
        file("tiny.yml", b""),
        "error[OPT03]: option file is empty (tiny.yml): got no content; expected "
        "options; fix: see the files in options/",
    ),
    4: Bad(
        text("name: tiny", "name: [tiny"),
        "error[OPT04]: YAML syntax: expected ',' or ']', but got ':' (tiny.yml:2:6): "
        "got 'scale: 2'; expected valid YAML; fix: check indentation, colons and "
        "quotes on that line",
    ),
    5: Bad(
        file("tiny.yml", b"name: caf\xe9\n"),
        "error[OPT05]: option file is not UTF-8 (tiny.yml): got byte 9 = 0xe9; "
        "expected UTF-8 text; fix: save it as UTF-8",
    ),
    6: Bad(
        file("tiny.yml", b"#" * (MAX_BYTES + 1)),
        "error[OPT06]: option file too large (tiny.yml): got more than 1048576 "
        "bytes; expected at most 1048576 bytes; fix: is this really an option file?",
    ),
    7: Bad(
        file("tiny.yml", b"name: !!python/object/apply:os.mkdir [owned]\n"),
        "error[OPT07]: tag not allowed (tiny.yml:1): got "
        "!!python/object/apply:os.mkdir; expected plain values; fix: remove the tag; "
        "option files build no objects",
    ),
    8: Bad(
        file("tiny.yml", BOMB.encode()),
        "error[OPT08]: too many aliases (tiny.yml:2): got more than 100 expansions; "
        "expected at most 100; fix: write the values out",
    ),
    9: Bad(
        file("tiny.yml", b"a: " + b"[" * 20_000),
        "error[OPT09]: options are nested too deeply (tiny.yml:1): got depth > 32; "
        "expected depth ≤ 32; fix: flatten the file",
    ),
    10: Bad(
        text("scale: 2\n", "scale: 2\nscale: 3\n"),
        "error[OPT10]: key 'scale' stands twice (tiny.yml:3): got also at "
        "tiny.yml:2; expected each key once; fix: remove one",
    ),
    11: Bad(
        text("lr: 1e-3", "lr: 1e-3, leraning_rate: 1e-3"),
        "error[OPT11]: unknown key of Adam (tiny.yml:13 "
        f"train.optim_g.leraning_rate): got 'leraning_rate'; expected one of {keys(Adam)}; fix: "
        "remove it",
    ),
    12: Bad(
        text("network_g: {type: SPAN, feature_channels: 8, upscale: 2}\n", ""),
        "error[OPT12]: required key 'network_g' is missing (tiny.yml:1 network_g): "
        "got nothing; expected network_g; fix: add 'network_g: …'",
    ),
    13: Good(text("lr: 1e-3", "lr: 1e-4"), "ok  tiny.yml: train SPAN ×2, ", ("check", "tiny.yml")),
    14: Bad(
        text("gt_size: 32", "gt_size: 32\n    use_hflip: no"),
        "error[OPT15]: wrong type of use_hflip (tiny.yml:9 "
        "datasets.train.use_hflip): got 'no'; expected true or false; fix: use true "
        "or false",
    ),
    15: Bad(
        text("name: tiny", "name: 001"),
        "error[OPT16]: wrong type of name (tiny.yml:1 name): got 1; expected text; "
        "fix: put it in quotes",
    ),
    16: Bad(
        text("per_gpu: 4", 'per_gpu: "4"'),
        "error[OPT17]: wrong type of batch_size_per_gpu (tiny.yml:9 "
        "datasets.train.batch_size_per_gpu): got '4'; expected a whole number; fix: "
        "write it without quotes",
    ),
    17: Bad(
        text("per_gpu: 4", "per_gpu: 0"),
        "error[OPT18]: batch_size_per_gpu is out of range (tiny.yml:9 "
        "datasets.train.batch_size_per_gpu): got 0; expected a number ≥ 1; fix: "
        "change it",
    ),
    18: Bad(
        text("lr: 1e-3", "lr: .nan"),
        "error[OPT19]: lr is not finite (tiny.yml:13 train.optim_g.lr): got nan; "
        "expected a finite number; fix: change it",
    ),
    19: Bad(
        text("name: tiny", "name: ../../x"),
        "error[OPT20]: name cannot be a folder's name (tiny.yml:1 name): got "
        "'../../x'; expected 1 to 100 letters, digits, '.', '_', '+', '-'; fix: "
        "choose a plain name",
    ),
    20: Bad(
        text("name: tiny", "name: /etc/x"),
        "error[OPT20]: name cannot be a folder's name (tiny.yml:1 name): got "
        "'/etc/x'; expected 1 to 100 letters, digits, '.', '_', '+', '-'; fix: "
        "choose a plain name",
    ),
    21: Bad(
        text("name: tiny", 'name: "a\\0b"'),
        "error[OPT20]: name cannot be a folder's name (tiny.yml:1 name): got "
        "'a\\x00b'; expected 1 to 100 letters, digits, '.', '_', '+', '-'; fix: "
        "choose a plain name",
    ),
    22: Bad(
        text("name: tiny", "name: " + "x" * 300),
        f"error[OPT20]: name cannot be a folder's name (tiny.yml:1 name): got '{'x' * 56}…; "
        "expected 1 to 100 letters, digits, '.', '_', '+', '-'; fix: choose a plain "
        "name",
    ),
    23: Bad(
        linked,
        "error[OPT21]: the experiment's folder lies elsewhere (experiments/tiny): "
        "got <here>/elsewhere; expected a folder in <here>/experiments; fix: remove "
        "the link or rename the run",
    ),
    24: Bad(
        existing,
        "error[OPT22]: an experiment of this name exists (experiments/tiny): got a "
        "folder that is not empty; expected a new name, --auto_resume or "
        "--overwrite; fix: --auto_resume to continue it, --overwrite to delete it "
        "and start anew",
    ),
    25: Bad(
        text("gt_size: 32", "gt_size: 32\n    filename_tmpl: '{0.__class__}'"),
        "error[OPT23]: a file name template may hold only one {} (tiny.yml:9 "
        "datasets.train.filename_tmpl): got '{0.__class__}'; expected text with "
        "exactly one {} and no other braces or slashes; fix: write for example '{}x4'",
    ),
    26: Bad(
        text("gt_size: 32", "gt_size: 32\n    filename_tmpl: '{}{}'"),
        "error[OPT23]: a file name template may hold only one {} (tiny.yml:9 "
        "datasets.train.filename_tmpl): got '{}{}'; expected text with exactly one "
        "{} and no other braces or slashes; fix: write for example '{}x4'",
    ),
    27: Bad(
        listed,
        "error[DAT01]: path leaves dataroot_gt (meta.txt:2): got ../../etc/passwd; "
        "expected a file inside gt; fix: correct the line",
    ),
    28: Bad(
        text("type: SPAN", "type: SPANN"),
        "error[OPT24]: unknown network (tiny.yml:10 network_g.type): got 'SPANN'; "
        f"expected one of {names(ARCHS)}; fix: did you mean 'SPAN'?",
    ),
    29: Bad(
        text("type: L1Loss", "type: L1Los"),
        "error[OPT24]: unknown loss (tiny.yml:15 train.pixel_opt.type): got 'L1Los'; "
        f"expected one of {names(LOSSES)}; fix: did you mean 'L1Loss'?",
    ),
    30: Bad(
        nothing,
        "error[OPT31]: unknown value of type (--set val.metrics.psnr={type: "
        "calculate_pnsr, crop_border: 2} val.metrics.psnr.type): got "
        "'calculate_pnsr'; expected 'calculate_psnr' or 'calculate_ssim'; fix: did "
        "you mean 'calculate_psnr'?",
        (*TRAIN, "val.metrics.psnr={type: calculate_pnsr, crop_border: 2}"),
        "OPT24",
    ),
    31: Bad(
        text("feature_channels: 8", "feature_chanels: 8"),
        "error[OPT11]: unknown key of SPAN (tiny.yml:10 network_g.feature_chanels): "
        f"got 'feature_chanels'; expected one of {keys(SpanOptions)}; fix: did you mean "
        "'feature_channels'?",
        planned="OPT25",
    ),
    32: Bad(
        saved(lambda: {"params": state(upscale=3)}),
        "error[WGT09]: weights do not fit the network (net.pth): got 2 of another "
        "shape (file ≠ network): upsampler.0.weight (27, 8, 3, 3) ≠ (12, 8, 3, 3), "
        "upsampler.0.bias (27,) ≠ (12,); expected exactly the network's keys and "
        "shapes; fix: the file is of SPAN, nearest to SPAN_x3 with feature_channels "
        "8 for 52: check type, width and scale of network_g, or set "
        "path.strict_load_g: false",
        WEIGHTS,
        "WGT01",
    ),
    33: Bad(
        text("gt_size: 32", "gt_size: 33"),
        "error[OPT26]: gt_size is not a multiple of the scale (tiny.yml:8 "
        "datasets.train.gt_size): got 33; expected a multiple of 2; fix: use 32 or 34",
    ),
    34: Bad(
        text("[50, 80]", "[50, 180]"),
        "error[OPT27]: milestones beyond the end of training (tiny.yml:14 "
        "train.scheduler.milestones): got 180; expected at most total_iter = 100; "
        "fix: shorten them",
    ),
    35: Bad(
        text("[50, 80]", "[80, 50]"),
        "error[OPT28]: milestones are not ascending (tiny.yml:14 "
        "train.scheduler.milestones): got [80, 50]; expected each larger than the "
        "one before; fix: sort them",
    ),
    36: Bad(
        text("total_iter: 100", "total_iter: 100\n  ema_decay: 1.5"),
        "error[OPT29]: ema_decay is out of range (tiny.yml:13 train.ema_decay): got "
        "1.5; expected a number in [0, 1); fix: try 0.999",
    ),
    # Folders and pairs
    37: Bad(
        lambda: shutil.rmtree("lq"),
        "error[DAT02]: no such folder (lq): got [Errno 2] No such file or directory: "
        "'lq'; expected a folder of images; fix: correct the path, or prepare the "
        "data set",
    ),
    38: Bad(
        emptied,
        "error[DAT03]: no image in the folder (lq): got none; expected files in one "
        "of .bmp .jpeg .jpg .png .tif .tiff .webp; fix: correct the path: are the "
        "images a folder deeper?",
    ),
    39: Bad(
        nothing,
        "error[DAT04]: the folder cannot be read (lq): got [Errno 13] Permission "
        "denied: 'lq'; expected a folder that this user may read; fix: change its "
        "permissions",
        patch=locked,
    ),
    40: Bad(
        lambda: Path("lq/b.png").unlink(),
        "error[DAT05]: LQ and GT do not pair (lq and gt): got none without GT, b.png "
        "without LQ; expected for every GT 'name' an LQ 'name'; fix: check "
        "filename_tmpl, or add or remove these files",
    ),
    41: Bad(
        renamed("c.png"),
        "error[DAT05]: LQ and GT do not pair (lq and gt): got c.png without GT, "
        "b.png without LQ; expected for every GT 'name' an LQ 'name'; fix: check "
        "filename_tmpl, or add or remove these files",
    ),
    42: Bad(
        renamed("B.png"),
        "error[DAT05]: LQ and GT do not pair (lq and gt): got B.png without GT, "
        "b.png without LQ; expected for every GT 'name' an LQ 'name'; fix: check "
        "filename_tmpl, or add or remove these files",
    ),
    43: Bad(
        resized("lq/b.png", 31),
        "error[DAT06]: LQ and GT sizes do not fit the scale (lq/b.png and gt/b.png): "
        "got LQ 31×31 and GT 64×64; expected GT 62×62 (scale 2); fix: check scale, "
        "dataroot_lq and filename_tmpl",
    ),
    44: Bad(
        lambda: (resized("gt/b.png", 30)(), resized("lq/b.png", 15)()),
        "error[DAT07]: image smaller than the training patch (gt/b.png): got 30×30; "
        "expected sides of at least 32; fix: use a smaller gt_size, set pad_small, "
        "or leave the image out",
    ),
    # Images
    45: Bad(
        file("lq/b.png", b""),
        "error[IMG01]: the image file is empty (lq/b.png): got 0 bytes; expected an "
        "image file; fix: copy or download the file again, or take it out of the set",
    ),
    46: Bad(
        file("lq/b.png", b"no picture at all\n"),
        "error[IMG02]: not an image that we can read (lq/b.png): got a file that "
        "starts with b'no picture at al'; expected PNG, JPEG, BMP, TIFF or WebP; "
        "fix: download it again: this is text (an error page, a Git LFS pointer)",
    ),
    47: Bad(
        file("lq/b.png", CUT_PNG),
        f"error[IMG03]: the image file is cut short (lq/b.png): got {len(CUT_PNG)} bytes without "
        "the closing IEND chunk; expected a whole PNG; fix: copy or download the "
        "file again, or take it out of the set",
    ),
    48: Bad(
        file("lq/b.png", flipped(pil(LQ), 500)),
        "error[IMG04]: the image file is damaged (lq/b.png): got a wrong checksum in "
        "chunk b'IDAT' at byte 33; expected intact chunks; fix: copy or download the "
        "file again, or take it out of the set",
    ),
    49: Bad(
        file("lq/b.jpg", CUT_JPEG),
        f"error[IMG03]: the image file is cut short (lq/b.jpg): got {len(CUT_JPEG)} bytes without "
        "the end marker (EOI); expected a whole JPEG; fix: copy or download the file "
        "again, or take it out of the set",
    ),
    50: Good(file("lq/b.jpg", flipped(pil(LQ, "JPEG"), 900)), "done: ", planned="IMG04"),
    51: Good(lambda: images.write("lq/b.png", LQ.astype(np.uint16) * 257), "done: "),
    52: Good(file("lq/b.png", pil(LQ[..., 0])), "done: "),
    53: Bad(
        file("lq/b.png", pil(Image.fromarray(LQ).convert("1"))),
        "error[IMG05]: the pixel format does not fit (lq/b.png): got a 1-bit PNG; "
        "expected 8 or 16 bits a channel; fix: convert it to an 8-bit gray or RGB PNG",
    ),
    54: Good(file("lq/b.png", with_alpha(255)), "done: "),
    55: Bad(
        file("lq/b.png", with_alpha(7)),
        "error[IMG06]: the image is partly transparent (lq/b.png): got alpha down to "
        "7 of 255; expected an opaque image; fix: flatten it, or restore infer "
        "--alpha drop",
    ),
    56: Bad(
        file("lq/b.png", paletted()),
        "error[IMG06]: the image is partly transparent (lq/b.png): got alpha down to "
        "0 of 255; expected an opaque image; fix: flatten it, or restore infer "
        "--alpha drop",
    ),
    57: Bad(
        file("lq/b.jpg", pil(Image.new("CMYK", (32, 32)), "JPEG")),
        "error[IMG07]: the image is CMYK (lq/b.jpg): got a JPEG of four inks; "
        "expected RGB or gray; fix: convert it to RGB first, with its colour profile",
    ),
    58: Bad(
        file("lq/b.jpg", turned(LQ)),
        "error[IMG08]: the image is stored turned (lq/b.jpg): got EXIF orientation "
        "6; expected 1 (upright); fix: turn its pixels and clear the tag",
    ),
    59: Good(
        file("lq/b.png", pil(LQ, icc_profile=b"Adobe RGB (1998)")),
        "lq/b.png has a colour profile that is not sRGB; profiles are not applied",
    ),
    60: Bad(
        file("lq/b.png", png_header(30_000, 30_000)),
        "error[IMG09]: the image is too large (lq/b.png): got 30000x30000 = 900.0 "
        "Mpx; expected at most 100.0 Mpx (max_pixels); fix: cut it up, or restore "
        "infer --max-pixels N",
    ),
    61: Bad(
        file("lq/b.png", png_header(60_000, 60_000)),
        "error[IMG09]: the image is too large (lq/b.png): got 60000x60000 = 3600.0 "
        "Mpx; expected at most 100.0 Mpx (max_pixels); fix: cut it up, or restore "
        "infer --max-pixels N",
    ),
    62: Bad(
        file("lq/b.png", png_header(32, 32, TEXT)),
        f"error[IMG10]: compressed text in the PNG is too large (lq/b.png): got {len(PACKED)} "
        "bytes in chunk b'zTXt', inflating to 8388609 or more; expected at most "
        "1048576 compressed and 8388608 inflated; fix: save it again without its "
        "metadata",
    ),
    63: Bad(
        file("lq/b.png", pil(FRAMES[0], "GIF", save_all=True, append_images=FRAMES[1:])),
        "error[IMG11]: only single still images can be read (lq/b.png): got a GIF "
        "file; expected PNG, JPEG, BMP, TIFF or WebP; fix: save the frame that is "
        "meant as a PNG",
    ),
    64: Bad(
        file("lq/b.tif", not_a_number),
        "error[IMG12]: the image holds NaN or infinity (lq/b.tif): got 3 NaN or "
        "infinite values; expected finite values; fix: find out what wrote it; save "
        "finite values",
    ),
    65: Good(
        file("lq/b.png", pil(LQ, "JPEG")), "lq/b.png is a JPEG file by its content; read as such"
    ),
    66: Good(pair("näme-図.png"), "done: "),
    67: Good(pair(f"{LONG}.png"), "done: "),
    68: Bad(
        lambda: (pair(FORGED)(), Path("lq", FORGED).write_bytes(b"no")),
        "error[IMG02]: not an image that we can read (lq/b\\nerror[IMG01]: "
        "forged.png): got a file that starts with b'no'; expected PNG, JPEG, BMP, "
        "TIFF or WebP; fix: download it again: this is text (an error page, a Git "
        "LFS pointer)",
    ),
    # Stores
    69: Elsewhere("data/test_stores.py::test_an_lmdb_that_is_not_whole"),
    70: Elsewhere("data/test_stores.py::test_an_lmdb_that_is_not_whole", "DAT09"),
    71: Elsewhere("data/test_shards.py::test_a_missing_or_damaged_shard"),
    # Weights
    72: Bad(
        saved(lambda: {"params": Bomb()}),
        "error[WGT02]: weights file wants to run code (net.pth): got global "
        "posix.mkdir; expected tensors and plain containers; fix: ask its author for "
        "a safetensors file",
        WEIGHTS,
    ),
    73: Bad(
        saved(lambda: {"params": Bomb()}, _use_new_zipfile_serialization=False),
        "error[WGT02]: weights file wants to run code (net.pth): got global "
        "posix.mkdir; expected tensors and plain containers; fix: ask its author for "
        "a safetensors file",
        WEIGHTS,
    ),
    74: Bad(
        lambda: Path("net.pth").write_bytes(pickle.dumps({"params": Bomb()}, 2)),
        "error[WGT02]: weights file wants to run code (net.pth): got global "
        "posix.mkdir; expected tensors and plain containers; fix: ask its author for "
        "a safetensors file",
        WEIGHTS,
    ),
    75: Bad(
        nested,
        "error[WGT02]: weights file wants to run code (net.pth): got global "
        "posix.mkdir; expected tensors and plain containers; fix: ask its author for "
        "a safetensors file",
        WEIGHTS,
    ),
    76: Good(
        saved(lambda: {"params": state(), "best_psnr": np.float64(31.5)}),
        "weights: net.pth (164 tensors, under params)",
        GOOD_WEIGHTS,
    ),
    77: Good(
        saved(lambda: {"params": state(), "args": argparse.Namespace(lr=1)}),
        "weights: net.pth (164 tensors, under params)",
        GOOD_WEIGHTS,
        planned="WGT03",
    ),
    78: Elsewhere(
        "archs/test_detect.py::test_settings_and_scores_of_a_trainer_do_not_stand_in_the_way",
        "WGT03",
    ),
    79: Bad(
        cut_weights,
        "error[WGT04]: weights file is damaged or cut short (net.pth): got "
        "BadZipFile: File is not a zip file; expected a whole file from torch.save; fix: "
        "copy or download it again",
        WEIGHTS,
    ),
    80: Bad(
        file("net.pth", b""),
        "error[WGT05]: weights file is empty (net.pth): got 0 bytes; expected a .pth "
        "or .safetensors file; fix: download it again",
        WEIGHTS,
        "WGT04",
    ),
    81: Bad(
        file("net.pth", b"<html><body>Sign in</body></html>"),
        "error[WGT05]: not a weights file (net.pth): got starts with "
        "b'<html><body>Sign'; expected a .pth or .safetensors file; fix: download "
        "the file, not its web page",
        WEIGHTS,
    ),
    82: Bad(
        saved(lambda: STRIDED),
        "error[WGT06]: tensor larger than what is stored (net.pth): got w "
        "(10000000000,); expected every element stored; fix: save it again with "
        ".contiguous()",
        WEIGHTS,
    ),
    83: Bad(
        deflated,
        "error[WGT07]: compressed entry in a weights file (net.pth): got "
        "whole/data.pkl; expected entries as torch.save stores them; fix: save it "
        "again with torch.save",
        WEIGHTS,
    ),
    84: Bad(
        file("net.pth", b"other weights"),
        "error[WGT08]: another file than expected (net.pth): got sha256 "
        "53959fa102f31e51d8d1ee12fe89c2fd7cd556dbaf2c6102046d195a504850a0; expected "
        "0123abcd; fix: download it again from the source that states this sum",
        ("inspect", "net.pth", "--sha256", "0123abcd"),
    ),
    85: Bad(
        saved(lambda: {"params": without_last(state())}),
        "error[WGT09]: weights do not fit the network (net.pth): got 1 missing: "
        "upsampler.0.bias; expected exactly the network's keys and shapes; fix: the "
        "file is of SPAN, nearest to SPAN_x2 with feature_channels 8 for 52: check "
        "type, width and scale of network_g, or set path.strict_load_g: false",
        WEIGHTS,
    ),
    86: Bad(
        saved(lambda: {"params": not_finite()}),
        "error[WGT10]: weights are not finite (net.pth): got NaN or Inf in "
        "conv_1.sk.bias; expected finite numbers; fix: use an earlier checkpoint",
        WEIGHTS,
    ),
    87: Good(
        saved(lambda: {f"module.{key}": value for key, value in state().items()}),
        "weights: net.pth (164 tensors, under module.)",
        GOOD_WEIGHTS,
    ),
    # Checkpoints
    88: Bad(
        trained,
        "error[CKP01]: checkpoint of another network "
        "(experiments/tiny/checkpoints/step_00000001): got feature_channels 8; "
        "expected feature_channels 12, as network_g says; fix: resume with the "
        "options the run was started with",
        (*RESUME[:-1], "network_g.feature_channels=12", "--auto_resume"),
        "CKP01",
    ),
    89: Bad(
        newer_schema,
        "error[CKP02]: checkpoint of a newer version "
        "(experiments/tiny/checkpoints/step_00000001): got schema 99; expected at "
        "most 1; fix: upgrade restore",
        RESUME,
    ),
    90: Bad(
        other_optimiser,
        "error[CKP03]: checkpoint does not fit this run's optimiser (resume): got "
        "state for body.0.weight, which is not trained here; expected a checkpoint "
        "of the same options; fix: resume with the options the run was started with",
        RESUME,
    ),
    91: Bad(
        nothing,
        "error[CKP04]: checkpoint could not be saved "
        "(experiments/tiny/checkpoints/step_00000001): got need 0 MiB, have 0 MiB "
        "free; expected room to write; fix: free some space or point "
        "path.experiments_root elsewhere",
        ONE_STEP,
        exit=4,
        patch=full,
    ),
    92: Bad(
        nothing,
        "error[CKP04]: checkpoint could not be saved "
        "(experiments/tiny/checkpoints/step_00000001): got Read-only file system; "
        "expected room to write; fix: free some space or point path.experiments_root "
        "elsewhere",
        ONE_STEP,
        exit=4,
        patch=failing_write(errno.EROFS),
    ),
    93: Bad(
        nothing,
        "error[CKP04]: checkpoint could not be saved "
        "(experiments/tiny/checkpoints/step_00000001): got Disk quota exceeded; "
        "expected room to write; fix: free some space or point path.experiments_root "
        "elsewhere",
        ONE_STEP,
        exit=4,
        patch=failing_write(errno.EDQUOT),
    ),
    # Environment
    94: Bad(
        nothing,
        "error[DST01]: WORLD_SIZE is not a number (environment): got 'two'; expected "
        "what torchrun sets; fix: start with torchrun, or use --launcher none",
        RANKS,
        patch=environment(WORLD_SIZE="two"),
    ),
    95: Bad(
        nothing,
        "error[DST02]: rank outside the world (environment): got RANK=3; expected 0 "
        "… 0; fix: start with torchrun",
        RANKS,
        patch=environment(RANK="3"),
    ),
    96: Bad(
        nothing,
        "error[DST03]: the global batch cannot be dealt out evenly "
        "(train.global_batch): got 6 over 1 rank(s) with batches of 4; expected 4 or "
        "8; fix: change train.global_batch, the batch of a rank or the number of "
        "ranks",
        (*TRAIN, "train.global_batch=6"),
    ),
    97: Elsewhere("test_bad_inputs.py::test_processes_that_cannot_meet"),
    98: Elsewhere("test_bad_inputs.py::test_processes_that_cannot_meet"),
    99: Elsewhere("test_bad_inputs.py::test_processes_that_cannot_meet"),
    100: Bad(
        nothing,
        "error[DEV01]: a GPU was asked for and there is none (num_gpu): got 8 (torch "
        "2.13.0: Found no NVIDIA driver on your system); expected 0 or auto on this "
        "machine; fix: --set num_gpu=0, or install torch with CUDA and a driver that "
        "it takes",
        (*TRAIN, "num_gpu=8"),
        patch=gpus(0),
    ),
    101: Bad(
        nothing,
        "error[DEV02]: more processes than GPUs on this machine (LOCAL_RANK): got 9; "
        "expected below 8; fix: --nproc-per-node=8",
        (*RANKS, "--set", "num_gpu=auto"),
        patch=gpus(8, LOCAL_RANK="9"),
    ),
    102: Elsewhere("test_bad_inputs.py::test_a_gpu_without_bf16"),
}


# The tests ----------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pairs at ×2 and an option file, all right."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(images, "_noted", set())
    for folder, image in (("gt", GT), ("lq", LQ)):
        Path(folder).mkdir()
        for name in ("a", "b"):
            images.write(f"{folder}/{name}.png", image)
    Path("tiny.yml").write_text(TINY_TRAIN)


def snapshot() -> dict[str, object]:
    """Every path here with its content."""
    paths = sorted(Path().rglob("*"), key=str)
    return {
        str(path): os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in paths
    }


def rows(kind: type) -> list[int]:
    return [number for number, row in ROWS.items() if isinstance(row, kind)]


def test_every_number_of_the_table_has_its_row() -> None:
    assert list(ROWS) == list(range(1, 103))


@pytest.mark.parametrize("number", rows(Bad))
def test_refused(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = ROWS[number]
    assert isinstance(row, Bad)
    row.make()
    before = snapshot()
    capsys.readouterr()
    with monkeypatch.context() as patched:
        if row.patch is not None:
            row.patch(patched)
        code = main(row.command)
    out, err = capsys.readouterr()
    said = err.replace(str(Path.cwd()), "<here>")
    answer = said[max(said.find("error["), 0) :].removesuffix("\n")
    assert answer == row.answer
    assert (code, out) == (row.exit, "")
    assert "Traceback" not in said
    assert not Path("owned").exists()
    if row.exit == 2:
        assert snapshot() == before
    else:  # a run had begun; what it could not save is not there half
        assert list(Path().rglob("step_*")) == list(Path().rglob(".tmp-*")) == []


@pytest.mark.parametrize("number", rows(Good))
def test_taken(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    row = ROWS[number]
    assert isinstance(row, Good)
    row.make()
    assert main(row.command) == 0
    out, err = capsys.readouterr()
    assert row.says in out + err
    assert "Traceback" not in err and "error[" not in err


@pytest.mark.parametrize("number", rows(Elsewhere))
def test_the_test_that_a_row_names_is_there(number: int) -> None:
    row = ROWS[number]
    assert isinstance(row, Elsewhere)
    name, _, test = row.test.partition("::")
    tree = ast.parse((TESTS / name).read_text())
    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


# What no row can say ------------------------------------------------------------------------------

PROBE = """
import json, os, sys
from restore.commands.main import main
for folder, command in json.loads(sys.argv[1]).items():
    os.chdir(folder)
    assert main(command) == 2
    assert "torch" not in sys.modules, folder
"""
AFTER_TORCH = (27, 32)  # these ask a list of files and weights


def test_mistakes_in_options_are_answered_without_torch(tmp_path: Path) -> None:
    """Importing it takes longer than a user should wait for the answer to a typo."""
    commands = {}
    for number in range(1, 37):
        row = ROWS[number]
        if isinstance(row, Bad) and number not in AFTER_TORCH:
            folder = tmp_path / str(number)
            folder.mkdir()
            os.chdir(folder)
            Path("tiny.yml").write_text(TINY_TRAIN)
            row.make()
            commands[str(folder)] = row.command
    words = [sys.executable, "-c", PROBE, json.dumps(commands)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("error[") == len(commands) >= 30


def test_debug_shows_where_an_error_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "-opt", "nope.yml", "--debug"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("Traceback (most recent call last)")
    assert 'options.py", line' in err and "error[OPT01]: option file not found (nope.yml)" in err


def test_resuming_with_other_options_of_the_network_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Where the weights fit all the same, as when a network's input range is another one."""
    trained()
    capsys.readouterr()
    assert main([*RESUME[:-1], "network_g.img_range=1", "--auto_resume"]) == 0
    err = capsys.readouterr().err
    assert "saved with another network_g: img_range 255.0; now img_range 1.0\n" in err
    assert main([*RESUME[:-1], "train.total_iter=3", "--auto_resume"]) == 0
    assert "img_range 1.0; now img_range 255.0" in capsys.readouterr().err
    assert main([*RESUME[:-1], "train.total_iter=3", "--auto_resume"]) == 0
    assert "another" not in capsys.readouterr().err


def test_a_gpu_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old GPU")
    with pytest.raises(BackendError) as caught:
        check_precision("bf16", torch.device("cuda", 0), "train.precision")
    assert str(caught.value) == (
        "error[DEV03]: this GPU has no bf16 (train.precision): got Old GPU; "
        "expected fp16 or fp32 on this GPU; fix: choose fp16 or fp32"
    )


def test_a_logger_that_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    before = snapshot()
    assert main([*TRAIN, "logger.wandb.project=p"]) == 2
    assert capsys.readouterr().err == (
        "error[DEV04]: wandb is not installed (logger.wandb.project): got p; expected the wandb "
        "package; fix: pip install wandb, or leave project out\n"
    )
    assert snapshot() == before


def test_a_gpu_that_this_torch_was_not_built_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(*shape: int, **how: object) -> None:
        raise RuntimeError("CUDA error: no kernel image is available for execution on the device\n")

    gpus(1)(monkeypatch)
    monkeypatch.setattr(torch, "zeros", refuses)
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    before = snapshot()
    assert main([*TRAIN, "num_gpu=auto"]) == 2
    assert capsys.readouterr().err == (
        "error[DEV06]: the GPU cannot be used (cuda:0): got CUDA error: no kernel image is "
        "available for execution on the device (torch 2.13.0, CUDA 13.0); expected a GPU and a "
        "driver that this torch was built for, with memory to spare; fix: install the torch that "
        "pytorch.org names for them, or --set num_gpu=0\n"
    )
    assert snapshot() == before


TINY_MAIR = (
    "network_g={type: MaIR, upscale: 2, embed_dim: 8, depths: [1], d_state: 1, "
    "upsampler: pixelshuffledirect}"
)


def test_a_scan_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for by name it is refused before a run begins; else the run says what it takes."""
    environment = {**os.environ, "CXX": "no-such-compiler", "RESTORE_CACHE": str(tmp_path / "made")}
    command = [sys.executable, "-m", "restore.commands", *ONE_STEP, TINY_MAIR]

    def train(backend: str) -> tuple[int, str]:
        environment["RESTORE_SCAN_BACKEND"] = backend
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        return done.returncode, done.stderr

    before = snapshot()
    assert train("cpu") == (
        2,
        "error[ENV30]: selective-scan backend not available (RESTORE_SCAN_BACKEND): got cpu (no "
        "C++ compiler found as CXX=no-such-compiler; install g++ or clang++, or set CXX); expected "
        "one of auto, reference, torch; fix: install a C++ compiler (g++ or clang++) and have it "
        "on PATH\n",
    )
    code, said = train("gpu")
    assert code == 2 and said.startswith("error[ENV30]: no such selective-scan backend")
    assert snapshot() == before
    code, said = train("auto")
    assert code == 0 and "backend torch; cpu would be faster, but no C++ compiler found" in said


@pytest.mark.parametrize("number", [97, 98, 99])
def test_processes_that_cannot_meet(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        if number != 99:
            taken.close()  # nobody listens there
        said, environ = {
            97: (
                "error[DST04]: the processes cannot meet (MASTER_ADDR:MASTER_PORT): "
                f"got 127.0.0.1:{port} (",
                {"RANK": "1", "MASTER_ADDR": "127.0.0.1"},
            ),
            98: (
                "error[DST05]: the first machine's name leads every machine to itself "
                "(MASTER_ADDR): got localhost; expected an address that the other machines reach; "
                "fix: torchrun --local-addr=<own address> --rdzv-conf=is_host=<1 on the first, "
                "else 0>\n",
                {"RANK": "1", "MASTER_ADDR": "localhost", "LOCAL_WORLD_SIZE": "1"},
            ),
            99: (
                "error[DST06]: the port is in use (MASTER_ADDR:MASTER_PORT): "
                f"got 127.0.0.1:{port}; expected a free port; "
                "fix: torchrun --master-port=<another>, or dist_params.port under SLURM\n",
                {"RANK": "0", "MASTER_ADDR": "127.0.0.1"},
            ),
        }[number]
        environment(WORLD_SIZE="2", MASTER_PORT=port, **environ)(monkeypatch)
        monkeypatch.setattr(world, "_die_with_parent", lambda: None)  # this process is pytest
        before = snapshot()
        assert main([*TRAIN, "dist_params.timeout=1", "--launcher", "pytorch"]) == 2
    err = capsys.readouterr().err
    assert err.startswith(said) and err.count("\n") == 1
    assert snapshot() == before
