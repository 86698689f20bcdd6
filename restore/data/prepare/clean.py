"""Floor 3. Clean images that Gaussian noise is added to: one folder each."""

from __future__ import annotations

from restore.data.prepare.records import SUFFIX, Part, Record, Rule, Version, by_rules
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
    split: str = "test",
    versions: tuple[Version, ...] = (),
    about: str = "",
) -> Record:
    part = Part(folder, rf"[^/]+{SUFFIX}", count, sizes, "train" if split == "train" else "test")
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
    return rf"(?i:{named})/(?:[^/]+/)*(?P<id>{name}){SUFFIX}", "{id}.{suffix}"


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
        (
            (
                rf"BSDS500/(?:data/)?images/(?:train|test)/(?P<id>[^/]+){SUFFIX}",
                "{id}.{suffix}",
            ),
            _images("BSD400", "CBSD400"),
        ),
        split="train",
        about="BSDS500's train and test; val is left out, as CBSD68 and B100 are of it",
    ),
    "wed": _folder(
        "WED", "WED", 4744, "research only; see its page",
        "the page of Ma et al., Waterloo Exploration Database (TIP 2017)",
        (
            (r"(?P<id>\d{5})\.(?P<suffix>bmp)", "{id}.{suffix}"),
            _images("WED", "WaterlooED"),
        ),
        split="train", about="exploration_database_and_code.rar must be unpacked first",
    ),
}  # fmt: skip
