"""Floor 2. Plain values (from YAML or a dict) -> a section; every mistake in them, said at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from restore.catalog import nearest
from restore.errors import OptionError, Problem
from restore.section import Path, Section

S = TypeVar("S", bound=Section)


def parse(section: type[S], values: Mapping[str, Any], where: Callable[[Path], str]) -> S:
    """`values` as a `section`; `where` says in words where a path of the tree stands.

    Raises OptionError with every problem found, in the order of the file.
    """
    known, found = _without_unknown(section, values, (), where)
    try:
        parsed = section.model_validate(known)
    except ValidationError as error:
        found += _refused(known, error.errors(include_url=False), where)
    else:
        if not found:
            return parsed
    found.sort(key=lambda item: _position(values, item[0]))
    raise OptionError(*(problem for _, problem in found))


def _position(values: Any, path: Path) -> list[int]:
    """The place of each key of `path` among its neighbours, as far as the path exists."""
    position: list[int] = []
    for key in path:
        keys = _keys(values)
        if key not in keys:
            break
        position.append(keys.index(key))
        values = values[key]
    return position


def _keys(value: object) -> list[Any]:
    if isinstance(value, Mapping):
        return list(value)
    return list(range(len(value))) if isinstance(value, tuple | list) else []


def _without_unknown(
    section: type[Section], values: Mapping[str, Any], path: Path, where: Callable[[Path], str]
) -> tuple[dict[str, Any], list[tuple[Path, Problem]]]:
    """A copy of `values` without unknown keys, and a problem for each of them."""
    kept: dict[str, Any] = {}
    problems: list[tuple[Path, Problem]] = []
    for key, value in values.items():
        here = (*path, key)
        if not section.knows(key):
            problems.append((here, _unknown_key(section, here, where(here))))
            continue
        child = section.child(key, value)
        if child is not None and isinstance(value, Mapping):
            value, found = _without_unknown(child, value, here, where)
            problems += found
        kept[key] = value
    return kept, problems


def _unknown_key(section: type[Section], path: Path, where: str) -> Problem:
    key = str(path[-1])
    known = [*section.model_fields, *section.further_examples]
    near = nearest(key, known)
    owner = section.model_fields["type"].default if "type" in known else _name(path[:-1])
    return Problem(
        "OPT11",
        f"unknown key of {owner}",
        where,
        _shown(key),
        "one of " + ", ".join(known),
        f"did you mean '{near}'?" if near else "remove it",
    )


def _refused(
    values: Mapping[str, Any], errors: list[ErrorDetails], where: Callable[[Path], str]
) -> list[tuple[Path, Problem]]:
    """pydantic's errors in the house's form; those of a union's members made one."""
    found: dict[Path, Problem] = {}
    for error in errors:
        path = _place(values, error["loc"])
        if error.get("ctx", {}).get("at"):
            path = (*path, error.get("ctx", {})["at"])
        problem = _problem(error, path, where(path))
        if path in found and found[path].expected != problem.expected:
            either = f"{found[path].expected} or {problem.expected}"
            what = f"wrong value of {_name(path)}"
            problem = replace(found[path], what=what, expected=either, fix="change it")
        found[path] = problem
    return list(found.items())


def _place(values: Any, loc: Path) -> Path:
    """`loc` without what pydantic adds to it: the names of a union's members, missing items."""
    for depth, key in enumerate(loc):
        if not _position(values, (key,)):
            return loc[: depth + 1] if isinstance(values, Mapping) else loc[:depth]
        values = values[key]
    return loc


def _problem(error: ErrorDetails, path: Path, place: str) -> Problem:
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    key, got = _name(path), _shown(value)
    if kind.startswith("OPT"):
        got = _shown(value[context["at"]]) if context["at"] else got
        return Problem(kind, context["what"], place, got, context["expected"], context["fix"])
    if kind == "missing" and isinstance(error["loc"][-1], int):
        length = f"a length ≥ {error['loc'][-1] + 1}"
        return Problem("OPT18", f"wrong length of {key}", place, got, length, "change it")
    if kind == "missing":
        return Problem(
            "OPT12", f"required key '{key}' is missing", place, "nothing", key, f"add '{key}: …'"
        )
    if kind == "finite_number":
        return Problem("OPT19", f"{key} is not finite", place, got, "a finite number", "change it")
    if kind in _BOUNDS:
        sign, name = _BOUNDS[kind]
        bound = f"a number {sign} {context[name]}"
        return Problem("OPT18", f"{key} is out of range", place, got, bound, "change it")
    if kind in _LENGTHS:
        sign, name = _LENGTHS[kind]
        length = f"a length {sign} {context[name]}"
        return Problem("OPT18", f"wrong length of {key}", place, got, length, "change it")
    if kind == "literal_error":
        near = nearest(str(value), re.findall(r"'([^']*)'", context["expected"]))
        fix = f"did you mean '{near}'?" if near else "change it"
        return Problem("OPT31", f"unknown value of {key}", place, got, context["expected"], fix)
    code, expected, fix = _TYPES.get(kind, ("OPT17", error["msg"].lower(), "change it"))
    if kind == "bool_type" and not isinstance(value, str):
        code = "OPT17"
    if kind == "string_type" and not isinstance(value, bool | int | float):
        code, fix = "OPT17", "write text"
    if kind in ("int_type", "float_type") and isinstance(value, str) and _NUMBER.fullmatch(value):
        fix = "write it without quotes"
    return Problem(code, f"wrong type of {key}", place, got, expected, fix)


def _name(path: Path) -> str:
    """What a message calls a value: its key, `betas[0]` for an item of a list."""
    if not path:
        return "the file"
    return str(path[-1]) if isinstance(path[-1], str) else f"{_name(path[:-1])}[{path[-1]}]"


def _shown(value: object) -> str:
    """`value` as a message shows it: never a page of it."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"


_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_BOUNDS = {
    "greater_than": (">", "gt"),
    "greater_than_equal": ("≥", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("≤", "le"),
}
_LENGTHS = {
    "too_short": ("≥", "min_length"),
    "too_long": ("≤", "max_length"),
    "string_too_short": ("≥", "min_length"),
    "string_too_long": ("≤", "max_length"),
}
_TYPES = {
    "bool_type": ("OPT15", "true or false", "use true or false"),
    "string_type": ("OPT16", "text", "put it in quotes"),
    "string_unicode": ("OPT17", "text in Unicode", "write no lone surrogates"),
    "int_type": ("OPT17", "a whole number", "write a whole number"),
    "int_from_float": ("OPT17", "a whole number", "write a whole number"),
    "float_type": ("OPT17", "a number", "write a number"),
    "tuple_type": ("OPT17", "a list", "write [a, b, …]"),
    "model_type": ("OPT17", "a mapping", "write 'key: value' lines below it"),
}
