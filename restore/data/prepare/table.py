"""Floor 3. All data sets that can be prepared, by the name a user types."""

from __future__ import annotations

from restore.catalog import Catalog
from restore.data.prepare.clean import CLEAN, DFWB
from restore.data.prepare.deblurring import GOPRO, HIDE, REALBLUR_J, REALBLUR_R
from restore.data.prepare.dehazing import RESIDE, RESIDE_6K
from restore.data.prepare.real_noise import DND, SIDD
from restore.data.prepare.records import Record
from restore.data.prepare.super_resolution import BENCHMARKS, DF2K, DIV2K

SETS: Catalog[Record] = Catalog(
    "data set",
    {
        "div2k": DIV2K,
        "df2k": DF2K,
        **BENCHMARKS,
        "gopro": GOPRO,
        "hide": HIDE,
        "realblur-j": REALBLUR_J,
        "realblur-r": REALBLUR_R,
        "sidd": SIDD,
        "dnd": DND,
        "reside": RESIDE,
        "reside-6k": RESIDE_6K,
        **CLEAN,
        "dfwb": DFWB,
    },
)
