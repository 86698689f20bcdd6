"""Floor 3. Option files and command-line overrides -> typed sections; mistakes name their line."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from restore.errors import OptionError, Problem
from restore.options_yaml import load
from restore.parsing import parse
from restore.section import Path, Section

MAX_BYTES = 1 << 20

S = TypeVar("S", bound=Section)


@dataclass
class Document:
    """Plain values of one option file, and the place of each of them."""

    name: str
    values: dict[str, Any]
    places: dict[Path, str] = field(default_factory=dict)

    def where(self, path: Path) -> str:
        """`file:line key.path`; for a key that is missing, the line of its nearest parent."""
        dotted = ".".join(map(str, path))
        for length in range(len(path), -1, -1):
            if path[:length] in self.places:
                return f"{self.places[path[:length]]} {dotted}".strip()
        return f"{self.name} {dotted}".strip()

    def problem(
        self, path: Path, code: str, what: str, got: str, expected: str, fix: str
    ) -> Problem:
        """What is wrong with the value at `path`, with its place."""
        return Problem(code, what, self.where(path), got, expected, fix)


def read_options(
    tree: type[S], path: str | os.PathLike[str], overrides: Sequence[str] = ()
) -> tuple[S, Document]:
    """The option file at `path`, with `key.path=value` overrides, as a `tree`.

    Raises OptionError with all problems of the file at once.
    """
    document = read_document(path)
    for assignment in overrides:
        override(document, assignment)
    return parse(tree, document.values, document.where), document


def read_document(path: str | os.PathLike[str]) -> Document:
    """The plain values of a YAML file. Raises OptionError (OPT01 to OPT10)."""
    name = os.fspath(path)
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, ValueError):  # ValueError: a null character in the name
        raise OptionError.of(
            "OPT01",
            "option file not found",
            name,
            "no such file",
            "a YAML file",
            "check the path after -opt",
        ) from None
    except IsADirectoryError:
        raise OptionError.of(
            "OPT02",
            "the option file is a directory",
            name,
            "a directory",
            "a YAML file",
            "name a file inside it",
        ) from None
    except OSError as error:
        raise OptionError.of(
            "OPT01",
            "option file cannot be read",
            name,
            str(error.strerror),
            "a readable file",
            "check its permissions",
        ) from None
    if len(raw) > MAX_BYTES:
        raise OptionError.of(
            "OPT06",
            "option file too large",
            name,
            f"more than {MAX_BYTES} bytes",
            f"at most {MAX_BYTES} bytes",
            "is this really an option file?",
        )
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OptionError.of(
            "OPT05",
            "option file is not UTF-8",
            name,
            f"byte {error.start} = 0x{raw[error.start]:02x}",
            "UTF-8 text",
            "save it as UTF-8",
        ) from None
    document = Document(name, {})
    value = load(text, name, document.places)
    if value is None:
        raise OptionError.of(
            "OPT03",
            "option file is empty",
            name,
            "no content",
            "options",
            "see the files in options/",
        )
    if not isinstance(value, dict):
        raise OptionError.of(
            "OPT17",
            "an option file is a mapping",
            name,
            type(value).__name__,
            "'key: value' lines",
            "see the files in options/",
        )
    document.values.update(value)
    return document


def override(document: Document, assignment: str) -> None:
    """Apply `a.b=value` (ours) or `a:b=value` (BasicSR's --force_yml) to the document."""
    dotted, equals, text = assignment.partition("=")
    keys = tuple(re.split(r"[.:]", dotted))
    place = f"--set {assignment}"
    if not equals or not all(keys):
        raise OptionError.of(
            "OPT32",
            "an override needs a key path and a value",
            place,
            assignment,
            "key.path=value",
            "for example --set train.total_iter=100",
        )
    value = scalar(text, place)
    at: Any = document.values
    for depth, key in enumerate(keys[:-1], start=1):
        if at.get(key) is None:
            at[key] = {}
            document.places[keys[:depth]] = place
        at = at[key]
        if not isinstance(at, dict):
            raise OptionError.of(
                "OPT32",
                "an override goes through a value that is no mapping",
                place,
                ".".join(keys[:depth]),
                "a mapping there",
                "shorten the path",
            )
    at[keys[-1]] = value
    for path in [p for p in document.places if p[: len(keys)] == keys]:
        del document.places[path]
    document.places[keys] = place


def scalar(text: str, place: str) -> Any:
    """The value of one YAML text from a command line; `place` names it in errors.

    What is no YAML is text: `filename_tmpl={}x4` needs no second layer of quotes.
    """
    try:
        return load(text, place, {})
    except OptionError as error:
        if error.problems[0].code == "OPT04":
            return text
        raise
