"""Floor 3. Clean images that noise is added to: one folder each, and the union to train on."""

from __future__ import annotations

from typing import Literal

from restore.data.prepare.records import PNG, SUFFIX, Part, Record, Rule, Version, by_rules, flat
from restore.data.prepare.versions import kodak_version

_BSD = ((321, 481), (481, 321))


def _folder(
    title: str,
    folder: str,
    count: int,
    licence: str,
    origin: str,
    rules: tuple[Rule, ...],
    *,
    sizes: tuple[tuple[int, int], ...] = (),
    split: Literal["train", "test"] = "test",
    versions: tuple[Version, ...] = (),
    about: str = "",
) -> Record:
    part = Part("HR", flat("HR"), count, sizes, split)
    return Record(
        title=title,
        folder=f"datasets/{folder}",
        licence=licence,
        origin=origin,
        expected=f"a folder or archive named {folder} with the images",
        arrange=by_rules(*rules),
        parts=(part,),
        versions=versions,
        about=about,
    )


def _images(*folders: str, name: str = "[^/]+") -> Rule:
    """Images under a folder of one of these names (letter case aside), however deep."""
    named = "|".join(folders)
    return rf"(?i:{named})/(?:[^/]+/)*(?P<id>{name}){SUFFIX}", "HR/{id}.{suffix}"


_BSD400 = (
    (rf"BSDS500/(?:data/)?images/(?:train|test)/(?P<id>[^/]+){SUFFIX}", "HR/{id}.{suffix}"),
    _images("BSD400", "CBSD400"),
)
_WED = (
    (r"(?P<id>\d{5})\.(?P<suffix>bmp)", "HR/{id}.{suffix}"),
    _images("WED", "WaterlooED"),
)
_BSDS = "BSDS500: research and education only"
CLEAN = {
    "cbsd68": _folder(
        "CBSD68", "CBSD68", 68, _BSDS, "the packs of FFDNet, KAIR or Restormer",
        (_images("CBSD68", "CBSD68-dataset", name=r"\d+"),), sizes=_BSD,
        about="68 of BSDS500's val images, named by their number; BSD400 has none of them",
    ),
    "kodak24": _folder(
        "Kodak24", "Kodak24", 24, "released by Kodak for unrestricted use",
        "the packs of FFDNet, KAIR or Restormer (500x500), or the Kodak suite (768x512)",
        (_images("Kodak24", "Kodak", "CKodak", name=r"(?:kodim)?\d+"),), versions=(kodak_version,),
        about="denoising tables are of the 500x500 pack, the middles of the 768x512 originals",
    ),
    "mcmaster": _folder(
        "McMaster", "McMaster", 18, "none stated; used in research",
        "the page of Zhang et al. (JEI 2011), or the packs of FFDNet, KAIR or Restormer",
        (_images("McMaster", "McM", name=r"(?:mcm_)?\d+"),), sizes=((500, 500),),
    ),
    "bsd400": _folder(
        "BSD400", "BSD400", 400, _BSDS, "BSDS500 (its train and test folders), or a pack BSD400",
        _BSD400,
        split="train",
        about="BSDS500's train and test; val is left out, as CBSD68 and B100 are of it",
    ),
    "wed": _folder(
        "WED", "WED", 4744, "research only; see its page",
        "the page of Ma et al., Waterloo Exploration Database (TIP 2017)",
        _WED,
        split="train", about="exploration_database_and_code.rar must be unpacked first",
    ),
}  # fmt: skip

DFWB = Record(
    title="DFWB",
    folder="datasets/DFWB",
    licence="as DIV2K, Flickr2K, BSD400 and WED: research only",
    origin="those four; the union that denoisers are trained on",
    expected="DIV2K_train_HR, Flickr2K_HR, BSD400 or BSDS500, and WED's 00001.bmp",
    arrange=by_rules(
        *(
            (pattern, template.removeprefix("HR/"))
            for pattern, template in (
                (rf"DIV2K_train_HR/(?P<id>\d{{4}}){PNG}", "{id}.png"),
                (rf"Flickr2K_HR/(?P<id>\d{{6}}){PNG}", "{id}.png"),
                (rf"DF2K/HR/(?P<id>\d+){PNG}", "{id}.png"),
                *_BSD400,
                *_WED,
            )
        )
    ),
    parts=(  # names never meet: WED has five digits, the first a 0, BSD none that begins with 0
        Part("DIV2K", rf"0\d{{3}}{PNG}", 800, split="train"),
        Part("Flickr2K", rf"0\d{{5}}{PNG}", 2650, split="train"),
        Part("WED", rf"0\d{{4}}{SUFFIX}", 4744, split="train"),
        Part("BSD400", rf"(?:[1-9]\d*|test_\d+){SUFFIX}", 400, _BSD, "train"),
    ),
    about="8594 images; a test set must not be among them, so no val of BSDS500 or DIV2K",
)
