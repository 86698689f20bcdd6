"""Floor 3. Real noise: SIDD (whole frames, validation blocks) and DND."""

from __future__ import annotations

from restore.data.prepare.dnd import read_blocks
from restore.data.prepare.records import Blocks, Pair, Part, Record, Tiles, by_rules, flat
from restore.data.prepare.versions import sidd_blocks

_FRAME = (
    r"(?P<scene>\d{{4}}_\d{{3}}_[^/]+)/"
    r"(?P<id>\d{{4}})_{}_SRGB_(?P<shot>\d{{3}})\.(?P<suffix>(?i:png))"
)
_GT, _NOISY = _FRAME.format("GT"), _FRAME.format("NOISY")


def _crops(frame: str, folder: str) -> Tiles:
    """Both crops under the noisy stem, as MIRNet-v2's and Restormer's scripts name them."""
    target = f"train/{folder}/{{id}}_NOISY_SRGB_{{shot}}-{{k}}.png"
    return Tiles(f"Data/{frame}", target, 512, 384)


SIDD = Record(
    title="SIDD",
    folder="datasets/SIDD",
    licence="MIT",
    origin="the page of Abdelhamed et al., SIDD (CVPR 2018): SIDD-Medium sRGB, and the validation "
    "blocks ValidationNoisyBlocksSrgb.mat and ValidationGtBlocksSrgb.mat",
    expected="Data/0001_001_S6_…/0001_{GT,NOISY}_SRGB_010.PNG, Validation{Noisy,Gt}BlocksSrgb.mat, "
    "or {input_crops,target_crops}",
    arrange=by_rules(
        (_GT, "Data/{scene}/{id}_GT_SRGB_{shot}.{suffix}"),
        (_NOISY, "Data/{scene}/{id}_NOISY_SRGB_{shot}.{suffix}"),
        (r"(?P<name>Validation(?:Noisy|Gt)BlocksSrgb)\.mat", "val/{name}.mat"),
        (r"BenchmarkNoisyBlocksSrgb\.mat", "benchmark/BenchmarkNoisyBlocksSrgb.mat"),
        (r"(?P<kind>(?:input|target)_crops)/(?P<id>[^/]+)\.png", "train/{kind}/{id}.png"),
    ),
    parts=(
        Part("Data/SCENE/…_GT", f"Data/{_GT}", 320, split="train"),
        Part("Data/SCENE/…_NOISY", f"Data/{_NOISY}", 320),
        Part("val/*.mat", r"val/Validation(Noisy|Gt)BlocksSrgb\.mat", 2),
        Part("benchmark/*.mat", r"benchmark/BenchmarkNoisyBlocksSrgb\.mat", 1),
        Part("train/input_crops", flat("train/input_crops")),
        Part("train/target_crops", flat("train/target_crops")),
    ),
    pairs=(
        Pair("Data", "Data", pairing="sidd"),
        Pair("train/target_crops", "train/input_crops"),
    ),
    tiles=(_crops(_NOISY, "input_crops"), _crops(_GT, "target_crops")),
    versions=(sidd_blocks,),
    about="320 pairs are SIDD-Medium, 160 (only …_010) SIDD-Small; the options train on sub-images",
)

DND = Record(
    title="DND",
    folder="datasets/DND",
    licence="research only; see its page",
    origin="the page of the Darmstadt Noise Dataset (Plötz and Roth, CVPR 2017): dnd_2017",
    expected="dnd_2017/info.mat and dnd_2017/images_srgb/0001.mat",
    arrange=by_rules(
        (r"info\.mat", "info.mat"),
        (r"images_srgb/(?P<id>\d{4})\.mat", "images_srgb/{id}.mat"),
    ),
    parts=(
        Part("info.mat", r"info\.mat", 1),
        Part("images_srgb", r"images_srgb/\d{4}\.mat", 50),
        Part("input", flat("input"), 1000, ((512, 512),), bits=16),
    ),
    blocks=(
        Blocks(
            r"images_srgb/(?P<id>\d{4})\.mat",
            "input/{id}_{k:02d}.png",
            read_blocks,
        ),
    ),
    about="no ground truth is public; 50 images × 20 boxes become 1000 PNGs of 16 bits",
)
