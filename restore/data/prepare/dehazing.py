"""Floor 3. Haze: RESIDE's ITS, OTS and SOTS, and RESIDE-6K."""

from __future__ import annotations

from restore.data.prepare.records import SUFFIX, Pair, Part, Record, Rule, by_rules, flat
from restore.data.prepare.versions import reside_version

_CLEAR, _HAZY = r"(?:gt|GT|clear|clean)", r"(?:hazy|haze|part\d)"
_ANY = r"(?:[^/]+/)*"
_INDOOR = ((460, 620), (480, 640))


def _rules(found: str, clear: str, hazy: str) -> tuple[Rule, Rule]:
    """Clear and hazy images under a folder that `found` names, other folders between or not."""
    return (
        (rf"{found}/{_ANY}{_CLEAR}/(?P<id>[^/_]+){SUFFIX}", clear + "/{id}.{suffix}"),
        (rf"{found}/{_ANY}{_HAZY}/(?P<id>[^/_]+_[^/]+){SUFFIX}", hazy + "/{id}.{suffix}"),
    )


_SIX = rf"RESIDE[-_]6K/{_ANY}(?P<half>train|test)/{{}}/(?P<id>[^/]+){SUFFIX}"

RESIDE = Record(
    title="RESIDE",
    folder="datasets/RESIDE",
    licence="none stated for the images",
    origin="the page of Li et al., Benchmarking Single Image Dehazing (TIP 2019): ITS, OTS, SOTS",
    expected="ITS/{clear,hazy}, OTS/{clear,part1…part4}, SOTS/{indoor,outdoor}/{gt,hazy} or "
    "nyuhaze500/{gt,hazy}; any of them",
    arrange=by_rules(
        *_rules("(?:indoor|nyuhaze500)", "SOTS/indoor/gt", "SOTS/indoor/hazy"),
        *_rules("outdoor", "SOTS/outdoor/gt", "SOTS/outdoor/hazy"),
        *_rules("ITS[^/]*", "ITS/clear", "ITS/hazy"),
        *_rules("OTS[^/]*", "OTS/clear", "OTS/hazy"),
    ),
    parts=(
        Part("ITS/clear", flat("ITS/clear"), 1399, _INDOOR, "train"),
        Part("ITS/hazy", flat("ITS/hazy"), 13990, _INDOOR),
        Part("OTS/clear", flat("OTS/clear"), split="train"),  # two versions: see reside_version
        Part("OTS/hazy", flat("OTS/hazy")),
        Part("SOTS/indoor/gt", flat("SOTS/indoor/gt"), 50, _INDOOR, "test"),
        Part("SOTS/indoor/hazy", flat("SOTS/indoor/hazy"), 500, _INDOOR),
        Part("SOTS/outdoor/gt", flat("SOTS/outdoor/gt"), split="test"),
        Part("SOTS/outdoor/hazy", flat("SOTS/outdoor/hazy"), 500),
    ),
    pairs=(
        Pair("ITS/clear", "ITS/hazy", pairing="reside"),
        Pair("OTS/clear", "OTS/hazy", pairing="reside"),
        Pair("SOTS/indoor/gt", "SOTS/indoor/hazy", pairing="reside"),
        Pair("SOTS/outdoor/gt", "SOTS/outdoor/hazy", pairing="reside"),
    ),
    versions=(reside_version,),
    about="some clear images of OTS are ground truth of SOTS outdoor: the doctor names them",
)

RESIDE_6K = Record(
    title="RESIDE-6K",
    folder="datasets/RESIDE-6K",
    licence="none stated for the images",
    origin="DehazeFormer's page: 3000 images of ITS, 3000 of OTS, and SOTS to test on",
    expected="RESIDE-6K/{train,test}/{GT,gt,hazy} with equal names",
    arrange=by_rules(
        (_SIX.format(_CLEAR), "{half}/GT/{id}.{suffix}"),
        (_SIX.format(_HAZY), "{half}/hazy/{id}.{suffix}"),
    ),
    parts=(
        Part("train/GT", flat("train/GT"), 6000, split="train"),
        Part("train/hazy", flat("train/hazy"), 6000),
        Part("test/GT", flat("test/GT"), 1000, split="test"),
        Part("test/hazy", flat("test/hazy"), 1000),
    ),
    pairs=(Pair("train/GT", "train/hazy"), Pair("test/GT", "test/hazy")),
)
