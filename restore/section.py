"""Floor 2. Sections: the strict, frozen, typed options that each part owns.

A part declares what it can be told as a `Section` beside itself. `parse` turns plain values (from
YAML or from a dict) into one, and every mistake in them into one `OptionError`.
This file and every file of options import no torch, so that a typo is answered at once.
"""

from __future__ import annotations

import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticCustomError, core_schema

from restore.catalog import Catalog, locate, nearest
from restore.errors import OptionError, Problem

Path = tuple[str | int, ...]  # where a value stands in the tree: ("train", "optim_g", "lr")
S = TypeVar("S", bound="Section")


class Section(BaseModel):
    """Base of all options: no unknown key, no silent conversion, no change after reading."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    further_keys: ClassVar[str | None] = None
    """Pattern of keys accepted beyond the fields (`val_2`)."""

    @classmethod
    def further_section(cls) -> type[Section] | None:
        """The section type of the keys that `further_keys` accepts."""
        return None

    @classmethod
    def knows(cls, key: str) -> bool:
        """Whether `key` may stand in this section."""
        return key in cls.model_fields or bool(
            cls.further_keys and re.fullmatch(cls.further_keys, key)
        )

    @classmethod
    def child(cls, key: str, value: object) -> type[Section] | None:
        """The section type that the mapping `value` under `key` must follow, if it is one."""
        if key not in cls.model_fields:
            return cls.further_section()
        field = cls.model_fields[key]
        for mark in field.metadata:
            if isinstance(mark, OneOf):
                return mark.section(value)
        return _section_in(field.annotation)


def _section_in(annotation: object) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        found = (_section_in(part) for part in typing.get_args(annotation))
        return next((section for section in found if section), None)
    return None


def mistake(code: str, what: str, expected: str, fix: str) -> PydanticCustomError:
    """What a field validator raises so that `parse` can say it in the house's form."""
    # pydantic's message template is not used: `_problem` reads the context
    return PydanticCustomError(
        code,  # pyright: ignore[reportArgumentType]
        "invalid",
        {"what": what, "expected": expected, "fix": fix},
    )


def no_effect(reason: str) -> Any:
    """A field that other frameworks have: accepted, named in a warning, without effect here."""
    return Field(default=None, json_schema_extra={"no_effect": reason})


def expand(text: str) -> str:
    """`~` and `${NAME}` in a path replaced; an unset variable is a mistake."""

    def value(match: re.Match[str]) -> str:
        name = match.group(1)
        if name not in os.environ:
            raise mistake(
                "OPT30",
                f"environment variable {name} is not set",
                "a variable that exists",
                f"export {name}=… or write the path itself",
            )
        return os.environ[name]

    return os.path.expanduser(re.sub(r"\$\{(\w+)\}", value, text))


def _file_template(text: str) -> str:
    if text.count("{}") != 1 or text.replace("{}", "").count("{") or "/" in text:
        raise mistake(
            "OPT23",
            "a file name template may hold only one {}",
            "text with exactly one {} and no other braces or slashes",
            "write for example '{}x4'",
        )
    return text


UserPath = Annotated[str, Field(min_length=1), AfterValidator(expand)]
FileTemplate = Annotated[str, AfterValidator(_file_template)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]


@dataclass(frozen=True)
class OneOf:
    """Marks a field whose `type` names an entry of `catalog`; the entry says what else it takes.

    `options_of` gives an entry's Section. A dotted path `package.module:ENTRY` names an entry
    outside the table.
    """

    catalog: Catalog[Any]
    options_of: Callable[[Any], type[Section]]

    def entry(self, name: str) -> Any:
        """The entry called `name`, or None."""
        if name in self.catalog:
            return self.catalog[name]
        if ":" in name:
            try:
                return locate(name)
            except (ImportError, AttributeError, ValueError):
                return None
        return None

    def section(self, value: object) -> type[Section] | None:
        """The Section that the mapping `value` must follow, by its `type`."""
        name = value.get("type") if isinstance(value, Mapping) else None
        entry = self.entry(name) if isinstance(name, str) else None
        return self.options_of(entry) if entry is not None else None

    def validate(self, value: object) -> Section:
        """`value` as the Section that its `type` names."""
        kind = self.catalog.kind
        known = ", ".join(sorted(self.catalog))
        if isinstance(value, Section):
            return value
        if not isinstance(value, Mapping):
            raise mistake(
                "OPT17", f"a {kind} is a mapping", "a mapping with 'type'", f"type: one of {known}"
            )
        name = value.get("type")
        if name is None:
            raise mistake("OPT12", f"the {kind} has no type", f"type: one of {known}", "add 'type'")
        section = self.section(value)
        if section is None:
            near = self.catalog.nearest(str(name))
            fix = f"did you mean '{near}'?" if near else "choose one of the known names"
            raise mistake("OPT24", f"unknown {kind} '{name}'", f"one of {known}", fix)
        return section.model_validate(dict(value) | {"type": section.model_fields["type"].default})

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, _schema: Any, handler: Any) -> dict[str, Any]:
        sections = [self.options_of(entry) for entry in self.catalog.values()]
        return {"oneOf": [handler(section.__pydantic_core_schema__) for section in sections]}


def parse(section: type[S], values: Mapping[str, Any], where: Callable[[Path], str]) -> S:
    """`values` as a `section`; `where` says in words where a path of the tree stands.

    Raises OptionError with every problem found, in the order of the file.
    """
    values, problems = _without_unknown(section, values, (), where)
    try:
        parsed = section.model_validate(values)
    except ValidationError as error:
        problems += [_problem(section, values, e, where) for e in error.errors(include_url=False)]
    else:
        if not problems:
            return parsed
    raise OptionError(*problems)


def _without_unknown(
    section: type[Section], values: Mapping[str, Any], path: Path, where: Callable[[Path], str]
) -> tuple[dict[str, Any], list[Problem]]:
    """A copy of `values` without unknown keys, and a problem for each of them."""
    kept: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in values.items():
        here = (*path, key)
        if not section.knows(key):
            problems.append(_unknown_key(section, key, where(here)))
            continue
        child = section.child(key, value)
        if child is not None and isinstance(value, Mapping):
            value, found = _without_unknown(child, value, here, where)
            problems += found
        kept[key] = value
    return kept, problems


def _unknown_key(section: type[Section], key: str, where: str) -> Problem:
    known = list(section.model_fields)
    near = nearest(key, known)
    owner = section.model_fields["type"].default if "type" in known else section.__name__
    return Problem(
        "OPT11",
        f"unknown key of {owner}",
        where,
        repr(key),
        "one of " + ", ".join(known),
        f"did you mean '{near}'?" if near else "remove it",
    )


def _problem(
    section: type[Section],
    values: Mapping[str, Any],
    error: ErrorDetails,
    where: Callable[[Path], str],
) -> Problem:
    """One pydantic error in the house's form."""
    loc, kind, context = error["loc"], error["type"], error.get("ctx", {})
    got, place = repr(error["input"]), where(loc)
    key = str(loc[-1]) if loc else section.__name__
    if kind.startswith("OPT"):
        got = got if len(got) <= 60 else got[:57] + "…"
        return Problem(kind, context["what"], place, got, context["expected"], context["fix"])
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
    if kind == "literal_error":
        near = nearest(str(error["input"]), re.findall(r"'([^']*)'", context["expected"]))
        fix = f"did you mean '{near}'?" if near else "choose one of them"
        return Problem("OPT31", f"unknown value of {key}", place, got, context["expected"], fix)
    code, expected, fix = _TYPES.get(kind, ("OPT17", error["msg"].lower(), "change it"))
    if kind == "bool_type" and not isinstance(error["input"], str):
        code = "OPT17"
    if kind == "string_type" and not isinstance(error["input"], bool | int | float):
        code, fix = "OPT17", "write text"
    return Problem(code, f"wrong type of {key}", place, got, expected, fix)


_BOUNDS = {
    "greater_than": (">", "gt"),
    "greater_than_equal": ("≥", "ge"),
    "less_than": ("<", "lt"),
    "less_than_equal": ("≤", "le"),
}
_TYPES = {
    "bool_type": ("OPT15", "true or false", "use true or false"),
    "string_type": ("OPT16", "text", "put it in quotes"),
    "int_type": ("OPT17", "a whole number", "write it without quotes"),
    "int_from_float": ("OPT17", "a whole number", "write it without a fraction"),
    "float_type": ("OPT17", "a number", "write it without quotes"),
    "tuple_type": ("OPT17", "a list", "write [a, b, …]"),
    "model_type": ("OPT17", "a mapping", "write 'key: value' lines below it"),
}


def without_effect(section: Section, path: Path = ()) -> list[tuple[Path, str]]:
    """The keys that were given although they have no effect here: (path, reason)."""
    found: list[tuple[Path, str]] = []
    fields: Mapping[str, FieldInfo] = type(section).model_fields
    extra = section.__pydantic_extra__ or {}
    for key in [*section.model_fields_set, *(k for k in extra if k not in fields)]:
        value = getattr(section, key)
        field = fields.get(key)
        notes = field.json_schema_extra if field else None
        if isinstance(notes, dict) and "no_effect" in notes and value is not None:
            found.append(((*path, key), str(notes["no_effect"])))
        elif isinstance(value, Section):
            found += without_effect(value, (*path, key))
    return sorted(found, key=lambda item: str(item[0]))
