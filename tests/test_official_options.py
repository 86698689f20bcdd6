"""Option files of BasicSR, MaIR and MIRNet-v2 run unchanged, and migrate to today's spelling.

`tests/official/` holds files in exactly the official repositories' keys, with values of their
published recipes and folders of our own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from restore import images
from restore.archs import build_network
from restore.commands.check import tree_of_file
from restore.commands.main import main
from restore.commands.shared import read_tree
from restore.errors import OptionError
from restore.options import Document, read_document
from restore.options_legacy import DROPPED, NOT_HERE, Translation, read_translated, translate
from restore.recipes.checks import check_train
from restore.recipes.trees import TestTree, TrainTree
from restore.section import Section, without_effect

from helpers import TINY_TRAIN

ROOT = Path(__file__).parent
FILES = sorted((ROOT / "official").glob("*.yml"))
OPTIONS = ROOT.parent / "options"
every_file = pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])


def tree_of(file: Path, *overrides: str) -> Any:
    kind, check = tree_of_file(read_document(file))
    return read_tree(kind, str(file), list(overrides), check)


def meaning(section: Any) -> Any:
    """A section's values, without the keys that have no effect."""
    if not isinstance(section, Section):
        return section
    keys = [*type(section).model_fields, *(section.__pydantic_extra__ or {})]
    return {key: meaning(getattr(section, key)) for key in keys if not idle(type(section), key)}


def idle(kind: type[Section], key: str) -> bool:
    field = kind.model_fields.get(key)
    notes = field.json_schema_extra if field else None
    return isinstance(notes, dict) and "no_effect" in notes


# Whole files --------------------------------------------------------------------------------------


def keys_of(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for item in value.values() for key in keys_of(item)}
    return set()


def test_the_files_have_the_official_vocabulary() -> None:
    """Every key of facts' lists for MaIR (two trees), MIRNet-v2 and plain BasicSR stands in one."""
    there = {key for file in FILES for key in keys_of(read_document(file).values)}
    common = """
        name model_type scale num_gpu manual_seed datasets network_g path train val logger
        dist_params type task noise dataroot_gt dataroot_lq filename_tmpl io_backend
        gt_size use_hflip use_rot use_shuffle num_worker_per_gpu batch_size_per_gpu
        dataset_enlarge_ratio prefetch_mode upscale in_chans img_size img_range d_state
        depths embed_dim ssm_ratio mlp_ratio upsampler resi_connection dynamic_ids
        batch_size scan_len pretrain_network_g strict_load_g resume_state optim_g lr
        weight_decay betas scheduler milestones gamma total_iter warmup_iter pixel_opt
        loss_weight reduction val_freq val_freq_final val_milestone save_img suffix
        metrics crop_border test_y_channel print_freq save_checkpoint_freq use_tb_logger
        wandb project resume_id backend port"""
    unets = """
        geometric_augs mini_batch_sizes iters gt_sizes inp_channels out_channels dim
        num_blocks num_refinement_blocks flp_ratio bias dual_pixel_task use_grad_clip
        periods restart_weights eta_mins mixing_augs mixup mixup_beta use_identity
        window_size rgb2bgr use_image max_minibatch"""
    mirnet = "dataroot_lqL dataroot_lqR n_feat chan_factor n_RRG n_MRB height width scale task"
    assert set(f"{common} {unets} {mirnet}".split()) <= there


@every_file
def test_an_official_file_parses_translates_and_builds(file: Path) -> None:
    tree = tree_of(file)
    assert tree.model_type == "SRModel" and tree.name == read_document(file).values["name"]
    assert list(build_network(tree.network_g, meta=True).parameters())


@every_file
def test_nothing_of_a_file_is_lost_without_a_word(file: Path) -> None:
    """Each key of the file is in the tree under its name, translated, dropped, or of no effect."""
    old = read_document(file)
    kind, _ = tree_of_file(old)
    tree, _, done = read_translated(kind, file)
    told = " ".join(str(note) for note in done.rewritten + done.dropped)
    after = tree.model_dump()
    for path in old.places:
        value = _value(old.values, path)
        if isinstance(value, dict) or isinstance(path[-1], int) or value is None:
            continue
        names = [".".join(map(str, path))] + [".".join(map(str, path[:-1]))] * (len(path) > 3)
        assert _value(after, path) == value or any(f" {name}: " in told for name in names), path


def _value(values: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        if isinstance(values, dict) and key in values:
            values = values[key]
        elif isinstance(values, tuple) and isinstance(key, int) and key < len(values):
            values = values[key]
        else:
            return None
    return values


@every_file
def test_a_migrated_file_checks_without_a_word_and_means_the_same(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = meaning(tree_of(file))
    assert main(["migrate", str(file)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    new = tmp_path / file.name
    new.write_text(out)
    after = tree_of(new)
    assert capsys.readouterr().err == "" and without_effect(after) == []
    assert translate(read_document(new)) == Translation()
    assert meaning(after) == before
    old = read_document(file)
    kind, _ = tree_of_file(old)
    done = read_translated(kind, file)[2]
    for note in [*done.rewritten, *done.dropped]:
        assert str(note) in out
    assert main(["check", str(new)]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "official, ours",
    [
        ("RealDenoising_MIRNet_v2", "train_MIRNet_v2_RealDenoising"),
        ("SuperResolution_MIRNet_v2_scale3", "train_MIRNet_v2_SRx3"),
        ("DefocusDeblur_DualPixel_16bit_MIRNet_v2", "train_MIRNet_v2_DefocusDualPixel"),
        ("train_MaIR_ITS", "train_MaIRUNet_DehazingITS"),
        ("train_MaIR_MotionDeblur", "train_MaIRUNet_GoPro"),
        ("train_MaIR_CDN_s15", "train_MaIR_ColorDN15"),
        ("train_MaIR_S_lightSR_x2", "train_MaIR-S_SRx2"),
    ],
)
def test_an_official_file_trains_as_our_own_does(official: str, ours: str) -> None:
    theirs, own = tree_of(ROOT / f"official/{official}.yml"), tree_of(OPTIONS / f"{ours}.yml")
    network, wanted = meaning(theirs.network_g), meaning(own.network_g)
    assert network == wanted
    assert meaning(theirs.train) == meaning(own.train)
    train, expected = theirs.datasets.train, own.datasets.train
    for key in ("type", "gt_size", "batch_size_per_gpu", "use_hflip", "use_rot", "degradation"):
        assert getattr(train, key, None) == getattr(expected, key, None), key
    stages = [[(s.gt_size, s.batch) for s in tree.stages()] for tree in (train, expected)]
    assert stages[0] == stages[1]


# Single translations ------------------------------------------------------------------------------


def document(text: str) -> Document:
    class Loader(yaml.SafeLoader):
        pass

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return tuple(map(plain, value)) if isinstance(value, list) else value

    return Document("x.yml", plain(yaml.load(text, Loader)))


def translated(text: str) -> tuple[dict[str, Any], Translation]:
    read = document(text)
    return read.values, translate(read)


@pytest.mark.parametrize("kind", ["ImageCleanModel", "MambaIRModel", "MambaIRPlusModel"])
def test_models(kind: str) -> None:
    values, done = translated(f"{{model_type: {kind}, val: {{save_img: true}}}}")
    assert values["model_type"] == "SRModel" and len(done.rewritten) == 1
    assert values["val"].get("ensemble") == (8 if "Plus" in kind else None)


def test_an_ensemble_that_was_set_stays() -> None:
    values, _ = translated("{model_type: MaIRPlusModel, val: {ensemble: 4}}")
    assert values["val"] == {"ensemble": 4}


def test_an_unknown_model_stays_an_error(tmp_path: Path) -> None:
    file = write(tmp_path, TINY_TRAIN + "model_type: ESRGANModel\n")
    with pytest.raises(OptionError, match=r"OPT31.*model_type.*'ESRGANModel'"):
        read_translated(TrainTree, file)


@pytest.mark.parametrize(
    "entry, expected",
    [
        ("geometric_augs: true", {"use_hflip": True, "use_rot": True}),
        ("geometric_augs: false", {"use_hflip": False, "use_rot": False}),
        ("{geometric_augs: true, use_rot: false}", {"use_hflip": True, "use_rot": False}),
        ("{type: Dataset_PairedImage}", {"type": "PairedImageDataset"}),
        (
            "{type: Dehaze_Dataset, dataroot_lq: d/hazy}",
            {
                "type": "PairedImageDataset",
                "dataroot_lq": "d/hazy",
                "dataroot_gt": "d/gt",
                "pairing": "reside",
            },
        ),
        (
            "{type: PairedImageDataset, task: denoising_gray, noise: 50, dataroot_gt: a}",
            {
                "type": "DegradedImageDataset",
                "gray": "rgb2gray",
                "degradation": {"type": "GaussianNoise", "sigma": 50},
                "dataroot_gt": "a",
            },
        ),
        ("{type: PairedImageDataset, task: SR, noise: 0}", {"type": "PairedImageDataset"}),
        ("{use_flip: true}", {"use_hflip": True}),
    ],
)
def test_data_sets(entry: str, expected: dict[str, Any]) -> None:
    entry = entry if entry.startswith("{") else "{" + entry + "}"
    entry = entry if "type" in entry else entry[:-1] + ", type: PairedImageDataset}"
    values, done = translated(f"datasets: {{train: {entry}}}")
    assert values["datasets"]["train"] == {"type": "PairedImageDataset", **expected}
    assert done.problems == [] and done.rewritten + done.dropped


@pytest.mark.parametrize(
    "fork, loss, eps",
    [
        ("ImageCleanModel", "{type: CharbonnierLoss}", 1e-6),
        ("ImageCleanModel", "{type: CharbonnierLoss, eps: 1.0e-2}", 1e-4),
        ("SRModel", "{type: CharbonnierLoss, eps: 1.0e-12}", 1e-12),
        ("SRModel", "{type: CharbonnierLoss}", None),
        ("ImageCleanModel", "{type: L1Loss}", None),
    ],
)
def test_the_eps_of_a_forks_charbonnier_is_a_root(fork: str, loss: str, eps: float | None) -> None:
    values, _ = translated(f"{{model_type: {fork}, train: {{pixel_opt: {loss}}}}}")
    assert values["train"]["pixel_opt"].get("eps") == pytest.approx(eps)


@pytest.mark.parametrize("clip, expected", [("true", 0.01), ("false", None)])
def test_clipping(clip: str, expected: float | None) -> None:
    values, done = translated(f"train: {{use_grad_clip: {clip}}}")
    assert values["train"] == ({} if expected is None else {"grad_clip": expected})
    assert len(done.rewritten) == 1


def test_whole_numbers_written_as_floats() -> None:
    text = "{train: {scheduler: {milestones: [1.0e+3, 2000]}}, val: {val_freq: 5.0e+3}}"
    values, _ = translated(text)
    milestones = values["train"]["scheduler"]["milestones"]
    assert milestones == (1000, 2000) and all(isinstance(m, int) for m in milestones)
    assert values["val"]["val_freq"] == 5000 and isinstance(values["val"]["val_freq"], int)
    assert translated("val: {val_freq: 0.5}")[0] == {"val": {"val_freq": 0.5}}


def test_metrics_of_any_name() -> None:
    entry = "{type: calculate_psnr, crop_border: 4, test_y_channel: true}"
    values, done = translated(f"val: {{metrics: {{y: {entry}, niqe: {{type: calculate_niqe}}}}}}")
    assert list(values["val"]["metrics"]) == ["psnr"]
    assert "calculate_niqe is not computed here" in str(done.dropped[0])


def test_more_validations_from_a_step_on_are_not_offered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = "{val_freq: 5000, val_milestone: 250000, val_freq_final: 1000}"
    (tmp_path / "old.yml").write_text(TINY_TRAIN + f"val: {extra}\n")
    assert main(["migrate", str(tmp_path / "old.yml")]) == 0
    out = capsys.readouterr().out
    assert "val.val_milestone: validation is every val_freq steps, before this one and after" in out
    assert "val.val_freq_final: validation is every val_freq steps to the end" in out
    assert yaml.safe_load(out)["val"] == {"val_freq": 5000}


def test_what_is_dropped_is_named() -> None:
    for path, reason in DROPPED.items():
        read = Document("x.yml", nested(path, 1))
        done = translate(read)
        assert [note.text for note in done.dropped] == [reason] and "." not in str(read.values)


@pytest.mark.parametrize("path", NOT_HERE, ids=".".join)
def test_sections_of_a_gan_are_refused_by_name(path: tuple[str, ...]) -> None:
    (problem,) = translate(Document("x.yml", nested(path, {"type": "x"}))).problems
    assert problem.code == "OPT44" and path[-1] in problem.where
    assert translate(Document("x.yml", nested(path, None))).problems == []


def nested(path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return value


@pytest.mark.parametrize(
    "text", ["datasets: {val: {type: PairedImageDataset, task: CAR, noise: 40}}",
             "path: {resume_state: experiments/x/training_states/5000.state}"],
)  # fmt: skip
def test_what_cannot_be_translated_says_the_way_out(text: str) -> None:
    (problem,) = translated(text)[1].problems
    assert problem.code == "OPT44" and problem.fix and "docs/migrating.md" in problem.expected


def write(folder: Path, text: str) -> Path:
    file = folder / "x.yml"
    file.write_text(text)
    return file


def test_all_problems_come_at_once_with_their_lines(tmp_path: Path) -> None:
    text = TINY_TRAIN.replace("  pixel_opt", "  gan_opt: {type: GANLoss}\n  pixel_opt")
    text = text.replace("    gt_size", "    noise: many\n    task: denoising_color\n    gt_size")
    file = write(tmp_path, text + "modle_type: ImageCleanModel\n")
    with pytest.raises(OptionError) as caught:
        read_translated(TrainTree, file)
    codes = {problem.code: problem.where for problem in caught.value.problems}
    assert set(codes) == {"OPT44", "OPT11", "OPT17"}
    assert codes["OPT44"] == f"{file}:17 train.gan_opt"
    assert codes["OPT17"].startswith(f"{file}:8 datasets.train.degradation.sigma")


def test_overrides_may_be_in_either_spelling() -> None:
    file = ROOT / "official/RealDenoising_MIRNet_v2.yml"
    assert tree_of(file).train.grad_clip == 0.01
    assert tree_of(file, "train.grad_clip=0.5").train.grad_clip == 0.5
    assert tree_of(file, "train:use_grad_clip=false").train.grad_clip is None
    denoising = ROOT / "official/train_MaIR_CDN_s15.yml"
    tree = tree_of(denoising, "datasets.train.noise=50")
    assert tree.datasets.train.degradation.sigma == 50


def test_our_own_files_are_not_translated() -> None:
    for file in sorted(OPTIONS.glob("*.yml"))[::7]:
        assert translate(read_document(file)) == Translation()


def test_an_unknown_key_of_a_fork_stays_an_error(tmp_path: Path) -> None:
    text = (ROOT / "official/train_MaIR_ITS.yml").read_text()
    file = write(tmp_path, text.replace("  use_grad_clip", "  use_grad_clp"))
    with pytest.raises(OptionError, match=r"OPT11.*use_grad_clp"):
        read_tree(TrainTree, str(file), [], check_train)


json_like = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.dictionaries(
            st.sampled_from(
                "datasets train val path type task noise geometric_augs metrics pixel_opt eps "
                "use_grad_clip model_type scheduler milestones resume_state network_d".split()
            ),
            inner | st.sampled_from(["Dehaze_Dataset", "denoising_gray", "CharbonnierLoss"]),
            max_size=4,
        )
        | st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=12,
)


@settings(max_examples=150)
@given(
    st.dictionaries(st.sampled_from(["datasets", "train", "val", "path"]), json_like, max_size=4)
)
def test_nothing_makes_translation_fail(values: dict[str, Any]) -> None:
    done = translate(Document("x.yml", values))
    assert isinstance(done, Translation)


def test_migrate_refuses_what_check_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, TINY_TRAIN.replace("gt_size: 32", "gt_size: 33"))
    assert main(["migrate", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error[OPT26]: gt_size is not a multiple of the scale")


def test_a_test_file_is_told_from_a_training_file() -> None:
    assert tree_of_file(read_document(ROOT / "official/test_MaIRPlus_SR_x2.yml"))[0] is TestTree
    assert tree_of(ROOT / "official/test_MaIRPlus_SR_x2.yml").val.ensemble == 8


def test_an_official_file_trains_unchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The real command on MIRNet-v2's file, with less data, fewer steps and a narrow network."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for part in ("train", "val"):
        for folder in ("target_crops", "input_crops"):
            for name in ("a", "b"):
                image = rng.integers(0, 256, (24, 28, 3)).astype(np.uint8)
                file = tmp_path / "datasets/SIDD" / part / folder / f"{name}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                images.write(file, image)
    less = [
        "network_g.n_feat=16", "network_g.n_MRB=1", "num_gpu=0", "train.total_iter=3",
        "datasets.train.gt_size=16", "datasets.train.gt_sizes=[8,16]", "datasets.train.iters=[1,2]",
        "datasets.train.mini_batch_sizes=[2,1]", "datasets.train.batch_size_per_gpu=2",
        "val.val_freq=3", "logger.save_checkpoint_freq=3", "logger.use_tb_logger=false",
        "train.scheduler.periods=[1,2]",
    ]  # fmt: skip
    file = ROOT / "official/RealDenoising_MIRNet_v2.yml"
    assert main(["train", "-opt", str(file), "--set", *less]) == 0
    err = capsys.readouterr().err
    assert "translated" in err and "use_grad_clip" in err and "val.window_size has no effect" in err
    run = tmp_path / "experiments/RealDenoising_MIRNet_v2"
    assert (run / "checkpoints/step_00000003/model.safetensors").exists()
    assert main(["convert", str(run), "net_g.pth"]) == 0
    assert main(["inspect", "net_g.pth"]) == 0
