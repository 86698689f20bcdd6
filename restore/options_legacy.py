"""Floor 3. The spellings of BasicSR's older versions and of official forks -> today's.

The forks are those of MaIR (and MambaIR) and of MIRNet-v2; their option files run unchanged. A
`Document` is rewritten before it is parsed, every change is told, and what is left is checked as
strictly as ever: a key that is neither ours nor in this file's tables stays an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, TypeVar

from restore.errors import OptionError, Problem
from restore.options import Document, override, read_document
from restore.parsing import parse
from restore.section import Path, Section

S = TypeVar("S", bound=Section)

MODELS = {
    "ImageCleanModel": "",
    "MambaIRModel": "; images are restored whole here, not in tiles of about 200 pixels",
    "MaIRModel": "; images are restored whole here, not in tiles of about 200 pixels",
    "MambaIRPlusModel": "; its self-ensemble is val.ensemble: 8; images are restored whole",
    "MaIRPlusModel": "; its self-ensemble is val.ensemble: 8; images are restored whole",
}
DATA_SETS = {
    "Dataset_PairedImage": "PairedImageDataset",
    "Dehaze_Dataset": "PairedImageDataset",
    "Dataset_DefocusDeblur_DualPixel_16bit": "DualPixelDataset",
}
RENAMED: tuple[tuple[Path, str], ...] = (
    (("path", "pretrain_model_g"), "pretrain_network_g"),
    (("path", "strict_load"), "strict_load_g"),
    (("datasets", "train", "use_flip"), "use_hflip"),
)
COUNTS: tuple[Path, ...] = (
    ("train", "total_iter"),
    ("train", "warmup_iter"),
    ("val", "val_freq"),
    ("logger", "print_freq"),
    ("logger", "save_checkpoint_freq"),
)
COUNT_LISTS: tuple[Path, ...] = (
    ("train", "scheduler", "milestones"),
    ("train", "scheduler", "periods"),
    ("datasets", "train", "iters"),
)
DROPPED: dict[Path, str] = {
    ("val", "val_freq_final"): "validation is every val_freq steps to the end; lower that for more",
    ("val", "val_milestone"): "validation is every val_freq steps, before this one and after it",
    ("val", "window_size"): "inputs are padded to what the network needs, and cropped again",
    ("val", "rgb2bgr"): "images are RGB here, and files are written right",
    ("val", "use_image"): "scores are always those of the image rounded to its integers",
    ("val", "max_minibatch"): "images are validated one by one",
    ("find_unused_parameters",): "no network here has any",
}
NOT_HERE: dict[Path, str] = {
    ("network_d",): "a discriminator",
    ("train", "optim_d"): "a discriminator",
    ("train", "gan_opt"): "a GAN loss",
    ("train", "perceptual_opt"): "a perceptual loss",
    ("train", "net_d_iters"): "a discriminator",
    ("train", "net_d_init_iters"): "a discriminator",
    ("path", "pretrain_network_d"): "a discriminator",
    ("path", "strict_load_d"): "a discriminator",
}
METRICS = {"calculate_psnr": "psnr", "calculate_ssim": "ssim"}
OTHER_METRICS = ("calculate_niqe", "calculate_lpips", "calculate_fid")
CLIP = 0.01
FORK_EPS = 1e-3


@dataclass(frozen=True)
class Note:
    """One change: where it stood in the file, and what became of it."""

    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


@dataclass
class Translation:
    """What was rewritten, what was dropped (it has no effect here), and what cannot be done."""

    rewritten: list[Note] = field(default_factory=list)
    dropped: list[Note] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def read_translated(
    tree: type[S], path: str | PathLike[str], overrides: Sequence[str] = ()
) -> tuple[S, Document, Translation]:
    """`options.read_options` for files in an older or a fork's spelling as well.

    Overrides are in the file's spelling or in today's. Raises OptionError with all problems.
    """
    document = read_document(path)
    for assignment in overrides:
        override(document, assignment)
    done = translate(document)
    try:
        options = parse(tree, document.values, document.where)
    except OptionError as error:
        raise OptionError(*done.problems, *error.problems) from None
    if done.problems:
        raise OptionError(*done.problems)
    return options, document, done


def translate(document: Document) -> Translation:
    """Rewrite `document` in today's spelling; what is in it already stays as it is."""
    return _Translator(document).run()


class _Translator:
    def __init__(self, document: Document) -> None:
        self.document = document
        self.done = Translation()

    def run(self) -> Translation:
        for path, new in RENAMED:
            self._rename(path, new)
        fork = self._model() == "ImageCleanModel"
        sets = self._at(("datasets",))
        for key in list(sets) if isinstance(sets, dict) else ():
            self._data_set(("datasets", str(key)))
        self._training(fork)
        self._metrics()
        self._training_state()
        for path in COUNTS:
            self._count(path)
        for path in COUNT_LISTS:
            for index in range(len(self._list(path))):
                self._count((*path, index))
        for path, reason in DROPPED.items():
            self._drop(path, reason)
        for path, what in NOT_HERE.items():
            self._refuse(path, what)
        return self.done

    # The sections

    def _model(self) -> str:
        kind = self._at(("model_type",))
        if not isinstance(kind, str) or kind not in MODELS:
            return ""
        self._set(("model_type",), "SRModel", f"{kind} is SRModel{MODELS[kind]}")
        val = self._at(("val",))
        if "Plus" in kind and (val is None or isinstance(val, dict) and "ensemble" not in val):
            self._add(("val", "ensemble"), 8, ("model_type",))
        return kind

    def _data_set(self, at: Path) -> None:
        kind = self._at((*at, "type"))
        if not isinstance(kind, str):
            return
        if kind in DATA_SETS:
            self._set((*at, "type"), DATA_SETS[kind], f"{kind} is {DATA_SETS[kind]}")
        if kind == "Dehaze_Dataset":
            self._dehazing(at)
        if kind == "Dataset_DefocusDeblur_DualPixel_16bit":
            if self._at((*at, "filename_tmpl")) in ("{}", None):
                self._drop((*at, "filename_tmpl"), "the three views have equal names")
        self._task(at)
        self._flips(at)

    def _dehazing(self, at: Path) -> None:
        """GT of `hazy/12_1.png` is `gt/12.png`, whatever dataroot_gt says."""
        if self._at((*at, "pairing")) is None:
            text = "each id_….png is paired with id.png"
            self._add((*at, "pairing"), "reside", (*at, "type"))
            self._told((*at, "type"), f"pairing: reside, as its class does: {text}")
        lq = self._at((*at, "dataroot_lq"))
        if self._at((*at, "dataroot_gt")) is None and isinstance(lq, str) and "hazy" in lq:
            gt = lq.replace("hazy", "gt")
            self._add((*at, "dataroot_gt"), gt, (*at, "dataroot_lq"))
            self._told((*at, "dataroot_lq"), f"dataroot_gt: {gt}, as its class finds it")

    def _task(self, at: Path) -> None:
        """MambaIR's `task` and `noise` of a PairedImageDataset: how LQ comes about."""
        task, sigma = self._at((*at, "task")), self._at((*at, "noise"))
        if task in ("denoising_color", "denoising_gray") and sigma is not None:
            self._set((*at, "type"), "DegradedImageDataset", f"task {task} makes LQ from GT")
            degradation = {"type": "GaussianNoise", "sigma": sigma}
            self._move((*at, "noise"), "degradation", degradation, f"GaussianNoise, sigma {sigma}")
            if task == "denoising_gray":
                self._move((*at, "task"), "gray", "rgb2gray", "gray: rgb2gray")
            self._drop((*at, "task"), "the degradation says it; noise is rounded to 8 bits here")
            self._drop((*at, "dataroot_lq"), "LQ is made from GT")
            self._drop((*at, "filename_tmpl"), "LQ is made from GT")
        elif task == "SR" or task is None:
            self._drop((*at, "task"), "pairs of files are all it means")
            if sigma in (None, 0):
                self._drop((*at, "noise"), "no noise is asked for")
        else:
            fix = "type: DegradedImageDataset with degradation: {type: …}"
            self._problem((*at, "task"), f"task {task} cannot be translated", str(task), fix)
            self._remove((*at, "task"))

    def _flips(self, at: Path) -> None:
        wanted = self._at((*at, "geometric_augs"))
        if not isinstance(wanted, bool):
            return
        for key in ("use_hflip", "use_rot"):
            if self._at((*at, key)) is None:
                self._add((*at, key), wanted, (*at, "geometric_augs"))
        text = f"use_hflip and use_rot: {str(wanted).lower()}"
        self._told((*at, "geometric_augs"), text)
        self._remove((*at, "geometric_augs"))

    def _training(self, fork: bool) -> None:
        clip = self._at(("train", "use_grad_clip"))
        if isinstance(clip, bool):
            if clip and self._at(("train", "grad_clip")) is None:
                self._add(("train", "grad_clip"), CLIP, ("train", "use_grad_clip"))
            text = f"grad_clip: {CLIP}, which is built in there" if clip else "no grad_clip"
            self._told(("train", "use_grad_clip"), text)
            self._remove(("train", "use_grad_clip"))
        at: Path = ("train", "pixel_opt")
        if fork and self._at((*at, "type")) == "CharbonnierLoss":
            eps = self._at((*at, "eps"))
            square = float(FORK_EPS if eps is None else eps) ** 2
            self._told((*at, "type"), f"eps: {square:g}, which that fork writes as its root")
            self._add((*at, "eps"), square, (*at, "type"))

    def _metrics(self) -> None:
        """Entries of any name by their type; PSNR and SSIM are the two that are computed here."""
        at: Path = ("val", "metrics")
        entries = self._at(at)
        for name in list(entries) if isinstance(entries, dict) else ():
            kind = self._at((*at, name, "type"))
            key = METRICS.get(kind) if isinstance(kind, str) else None
            if kind in OTHER_METRICS:
                self._drop((*at, name), f"{kind} is not computed here")
            elif key is not None and key != name and key not in entries:
                self._move((*at, name), key, entries[name], key)

    def _training_state(self) -> None:
        state = self._at(("path", "resume_state"))
        if isinstance(state, str) and state.endswith(".state"):
            what = "a .state file of BasicSR cannot be continued"
            fix = "set path.pretrain_network_g to its net_g_….pth, and leave resume_state out"
            self._problem(("path", "resume_state"), what, state, fix)
            self._remove(("path", "resume_state"))

    # Single changes

    def _at(self, path: Path) -> Any:
        """The value at `path`, or None."""
        value: Any = self.document.values
        for key in path:
            if isinstance(value, dict):
                value = value.get(key)
            elif isinstance(value, tuple) and isinstance(key, int) and key < len(value):
                value = value[key]
            else:
                return None
        return value

    def _list(self, path: Path) -> tuple[Any, ...]:
        value = self._at(path)
        return value if isinstance(value, tuple) else ()

    def _has(self, path: Path) -> bool:
        parent = self._at(path[:-1])
        return isinstance(parent, dict) and path[-1] in parent

    def _parent(self, path: Path) -> dict[Any, Any]:
        """The mapping that holds `path`, made where there is none."""
        at: Any = self.document.values
        for key in path[:-1]:
            if at.get(key) is None:
                at[key] = {}
            at = at[key]
        return at

    def _told(self, path: Path, text: str) -> None:
        self.done.rewritten.append(Note(self.document.where(path), text))

    def _set(self, path: Path, value: Any, text: str) -> None:
        self._told(path, text)
        self._parent(path)[path[-1]] = value

    def _add(self, path: Path, value: Any, beside: Path) -> None:
        """A value that another one brings; errors name the line of that one."""
        self._parent(path)[path[-1]] = value
        place = self.document.places.get(beside)
        if place is not None:
            self.document.places[path] = place

    def _rename(self, path: Path, new: str) -> None:
        if self._has(path) and not self._has((*path[:-1], new)):
            self._move(path, new, self._at(path), new)

    def _move(self, path: Path, new: str, value: Any, text: str) -> None:
        """`value` under the key `new` in the place of `path`, in the same order of keys."""
        self._told(path, f"is {text}")
        parent = self._parent(path)
        items = list(parent.items())
        parent.clear()
        parent.update((new, value) if key == path[-1] else (key, item) for key, item in items)
        places = self.document.places
        for old in [p for p in places if p[: len(path)] == path]:
            places[(*path[:-1], new, *old[len(path) :])] = places[old]

    def _remove(self, path: Path) -> None:
        if self._has(path):
            del self._parent(path)[path[-1]]

    def _drop(self, path: Path, reason: str) -> None:
        if self._has(path):
            if self._at(path) is not None:
                self.done.dropped.append(Note(self.document.where(path), reason))
            self._remove(path)

    def _count(self, path: Path) -> None:
        """`!!float 5e3` where a whole number is meant."""
        value = self._at(path)
        if not isinstance(value, float) or not value.is_integer():
            return
        if isinstance(path[-1], int):
            items = list(self._list(path[:-1]))
            items[path[-1]] = int(value)
            self._set(path[:-1], tuple(items), f"{value:g} is the whole number {int(value)}")
        else:
            self._set(path, int(value), f"{value:g} is the whole number {int(value)}")

    def _refuse(self, path: Path, what: str) -> None:
        if self._at(path) is not None:
            fix = "remove it: what is trained here has pixel and frequency losses only"
            self._problem(path, f"{what} is not offered here", str(path[-1]), fix)
        self._remove(path)

    def _problem(self, path: Path, what: str, got: str, fix: str) -> None:
        expected = "what docs/migrating.md maps"
        self.done.problems.append(self.document.problem(path, "OPT44", what, got, expected, fix))
