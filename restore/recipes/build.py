"""Floor 6. Option trees -> what restores and scores images: sets, weights, predictor, a whole test.

`build_trainer` adds what training needs; these two are the only files that see every table.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from restore.archs.build import build_network, fuse
from restore.archs.table import architecture_of
from restore.archs.weights import load_weights, state_sha256
from restore.data.source import Source
from restore.data.sources import check_source, open_source
from restore.errors import WeightsError
from restore.evaluation.evaluator import Evaluator, Provenance
from restore.evaluation.options import PredictorOptions
from restore.evaluation.precision import check_precision
from restore.evaluation.predictor import Predictor
from restore.metrics.options import scores_of
from restore.ops.selective_scan.choice import chosen_name
from restore.recipes.experiment import Experiment
from restore.recipes.trees import PathOptions, ScoringOptions, TestTree, set_name
from restore.reports.provenance import commit
from restore.reports.records import read_object
from restore.section import Section
from restore.world import World

log = logging.getLogger("restore")


def use_threads(count: int | None) -> None:
    """Let operations on the CPU use `count` threads; torch's own choice for None."""
    if count is not None:
        torch.set_num_threads(count)


def channels_of(network: Section) -> int:
    """Channels of the images that a network takes."""
    return architecture_of(network).channels(network)


def open_sets(sets: dict[str, Section], scale: int, channels: int) -> list[tuple[str, Source]]:
    """(name, source) of evaluation sets, looked at before anything is written. Raises DataError."""
    opened = []
    for key, options in sets.items():
        source = open_source(options, scale, channels=channels, training=False)
        check_source(source)
        opened.append((set_name(key, options), source))
    return opened


def evaluators_of(
    sets: list[tuple[str, Source]], scoring: ScoringOptions, scale: int, world: World
) -> list[Evaluator]:
    """One evaluator per set, all under the same rules."""
    rules = scoring.rules(scale)
    further = scores_of(scoring.further_metrics.chosen())
    return [Evaluator(name, source, rules, world, further=further) for name, source in sets]


def predictor_of(
    network: nn.Module,
    options: Section,
    device: torch.device,
    how: PredictorOptions | None = None,
    *,
    compile: bool = False,
) -> Predictor:
    """A predictor over the network's deploy form, compiled on request. Raises BackendError."""
    how = how or PredictorOptions()
    check_precision(how.precision, device, "precision")
    architecture, deployed = architecture_of(options), fuse(network)
    if compile:
        deployed.compile()
    return Predictor(
        deployed,
        architecture.scale(options),
        architecture.size,
        device,
        how,
        step=architecture.step(options),
        reach=architecture.reach,
    )


def weights_file(path: str, key: str | None) -> Path:
    """The weights file that `path` means: itself, or the newest of one of our run folders.

    `key` chooses between `params` (model) and `params_ema` (ema, the default where there is one).
    """
    folder = Path(path)
    if not folder.is_dir():
        return folder
    if not (folder / "MANIFEST.json").exists():
        runs = folder if folder.name == "checkpoints" else folder / "checkpoints"
        latest = runs / "latest.json"
        if not latest.exists():
            raise WeightsError.of(
                "WGT05",
                "no checkpoint in this folder",
                path,
                "no checkpoints/latest.json",
                "the folder of a run that has saved",
                "train first, or name a file",
            )
        folder = runs / f"step_{_newest_step(latest):08d}"
    averaged = folder / "ema.safetensors"
    return averaged if averaged.exists() and key != "params" else folder / "model.safetensors"


def _newest_step(latest: Path) -> int:
    """The step in a run's `latest.json`. Raises WeightsError WGT05."""
    step = read_object(latest).get("step")
    if type(step) is int and step >= 0:
        return step
    raise WeightsError.of(
        "WGT05",
        "no checkpoint in this folder",
        str(latest),
        "another content than a save writes",
        '{"step": N}',
        "name a checkpoint's folder or a weights file",
    )


def load_pretrained(network: nn.Module, path: PathOptions) -> None:
    """Load `path.pretrain_network_g` where it is given. Raises WeightsError."""
    if path.pretrain_network_g is None:
        return
    file = weights_file(path.pretrain_network_g, path.param_key_g)
    ours = file.suffix == ".safetensors"
    report = load_weights(network, file, path.strict_load_g, key=None if ours else path.param_key_g)
    found = " ".join(part for part in (report.container, report.prefix) if part)
    log.info("weights: %s (%d tensors%s)", file, report.loaded, f", under {found}" if found else "")
    for what in ("missing", "unexpected", "mismatched"):
        keys = getattr(report, what)
        if keys:
            log.warning("weights: %d %s: %s", len(keys), what, ", ".join(keys[:10]))


@dataclass(frozen=True)
class TestRun:
    """A benchmark run ready to go."""

    __test__ = False
    network: nn.Module
    predictor: Predictor
    evaluators: list[Evaluator]
    experiment: Experiment
    provenance: Provenance
    parameters: int


def build_test(tree: TestTree, world: World, name: str) -> TestRun:
    """Everything a test run needs; nothing is written. `name`: the network's, in the rows."""
    use_threads(tree.num_threads)
    experiment = Experiment(tree.path.experiments_root, tree.name)
    sets = open_sets(tree.datasets.evaluated(), tree.scale, channels_of(tree.network_g))
    torch.manual_seed(tree.manual_seed)
    network = build_network(tree.network_g)
    if tree.path.pretrain_network_g is None:
        raise WeightsError.of(
            "WGT12",
            "no weights to test",
            "path.pretrain_network_g",
            "nothing",
            "a weights file or the folder of a run",
            "set path.pretrain_network_g",
        )
    load_pretrained(network, tree.path)
    deployed = fuse(network)
    scans = architecture_of(tree.network_g).scans
    provenance = Provenance(
        name,
        state_sha256(network.state_dict()),
        commit(),
        compiled=tree.val.compile,
        device=world.device.type,
        backend=chosen_name("auto", world.device, torch.float32) if scans else "",
    )
    return TestRun(
        network,
        predictor_of(network, tree.network_g, world.device, tree.val, compile=tree.val.compile),
        evaluators_of(sets, tree.val, tree.scale, world),
        experiment,
        provenance,
        sum(p.numel() for p in deployed.parameters()),
    )
