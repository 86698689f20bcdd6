"""Floor 2. What can be wrong with an image file or a folder of them, in the house's form."""

from __future__ import annotations

from restore.errors import DataError, Problem

AGAIN = "copy or download the file again, or take it out of the set"

PROBLEMS = {  # code -> (what is wrong, the usual way out)
    "IMG00": ("the image file cannot be read", "check the path and who may read it"),
    "IMG01": ("the image file is empty", AGAIN),
    "IMG02": ("not an image that we can read", "convert it to PNG, or download it again"),
    "IMG03": ("the image file is cut short", AGAIN),
    "IMG04": ("the image file is damaged", AGAIN),
    "IMG05": ("the pixel format does not fit", "convert it to an 8-bit gray or RGB PNG"),
    "IMG06": ("the image is partly transparent", "flatten it, or restore infer --alpha drop"),
    "IMG07": ("the image is CMYK", "convert it to RGB first, with its colour profile"),
    "IMG08": ("the image is stored turned", "turn its pixels and clear the tag"),
    "IMG09": ("the image is too large", "cut it up, or restore infer --max-pixels N"),
    "IMG10": ("compressed text in the PNG is too large", "save it again without its metadata"),
    "IMG11": ("only single still images can be read", "save the frame that is meant as a PNG"),
    "IMG12": ("the image holds NaN or infinity", "find out what wrote it; save finite values"),
    "IMG13": ("the image cannot be written", "check the folder, the suffix and the array"),
    "DAT02": ("no such folder", "correct the path, or prepare the data set"),
    "DAT03": ("no image in the folder", "correct the path: are the images a folder deeper?"),
    "DAT04": ("the folder cannot be read", "change its permissions"),
}


def flaw(code: str, where: str, got: str, expected: str, fix: str | None = None) -> DataError:
    """The DataError of one code of PROBLEMS, ready to raise; `fix` when the usual one is wrong."""
    what, usual = PROBLEMS[code]
    return DataError(Problem(code, what, where, got, expected, fix or usual))
