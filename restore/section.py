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
from dataclasses import dataclass, replace
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

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True
    )

    further_keys: ClassVar[str | None] = None
    """Pattern of keys accepted beyond the fields (`val_2`)."""
    further_examples: ClassVar[tuple[str, ...]] = ()
    """Some of them, for messages."""

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
            return None
        field = cls.model_fields[key]
        choice = next((m for m in field.metadata if isinstance(m, OneOf)), None)
        choice = choice or _choice_in(field.annotation)
        return choice.section(value) if choice else _section_in(field.annotation)


def _section_in(annotation: object) -> type[Section] | None:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, Annotated):
        found = (_section_in(part) for part in typing.get_args(annotation))
        return next((section for section in found if section), None)
    return None


def _choice_in(annotation: object) -> OneOf | None:
    """The `OneOf` inside a union, as in `Annotated[Section, OneOf(…)] | None`."""
    for part in typing.get_args(annotation):
        if isinstance(part, OneOf):
            return part
        found = _choice_in(part)
        if found:
            return found
    return None


def mistake(code: str, what: str, expected: str, fix: str, at: str = "") -> PydanticCustomError:
    """What a field validator raises so that `parse` can say it in the house's form.

    `at` is the key inside the field's mapping that is wrong, when it is not the whole of it.
    """
    # pydantic's message template is not used: `_problem` reads the context
    return PydanticCustomError(
        code,  # pyright: ignore[reportArgumentType]
        "invalid",
        {"what": what, "expected": expected, "fix": fix, "at": at},
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


@dataclass(frozen=True, eq=False)
class OneOf:
    """Marks a field whose `type` names an entry of `catalog`; the entry says what else it takes.

    `options_of` gives an entry's Section. A dotted path `package.module:ENTRY` names an entry
    outside the table; its Section has `type: Literal["package.module:ENTRY"]`, with that default.
    """

    catalog: Catalog[Any]
    options_of: Callable[[Any], type[Section]]

    def entry(self, name: str) -> Any:
        """The entry called `name`, or None when nothing of that name has options."""
        if name in self.catalog:
            return self.catalog[name]
        if ":" not in name:
            return None
        try:
            entry = locate(name)
            options = self.options_of(entry)
        except (ImportError, AttributeError, TypeError, ValueError):
            return None
        if not (isinstance(options, type) and issubclass(options, Section)):
            return None
        field = options.model_fields.get("type")
        return entry if field is not None and field.default == name else None

    def section(self, value: object) -> type[Section] | None:
        """The Section that the mapping `value` must follow, by its `type`."""
        name = value.get("type") if isinstance(value, Mapping) else None
        entry = self.entry(name) if isinstance(name, str) else None
        return self.options_of(entry) if entry is not None else None

    def validate(self, value: object) -> Section:
        """`value` as the Section that its `type` names."""
        kind = self.catalog.kind
        known = ", ".join(sorted(self.catalog)) or "your own, as package.module:NAME"
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
            if ":" in str(name):
                fix = self._why_not(str(name))
            raise mistake("OPT24", f"unknown {kind}", f"one of {known}", fix, at="type")
        return section.model_validate(dict(value) | {"type": section.model_fields["type"].default})

    def _why_not(self, name: str) -> str:
        """The way out for a dotted path that names no entry."""
        try:
            locate(name)
        except AttributeError as error:
            return str(error)
        except (ImportError, TypeError, ValueError) as error:
            return f"{error}; the folder of its module has to be on PYTHONPATH"
        return f"its options need the field type, with the default '{name}'"

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.validate)

    def __get_pydantic_json_schema__(self, _schema: Any, handler: Any) -> dict[str, Any]:
        sections = [self.options_of(entry) for entry in self.catalog.values()]
        if not sections:  # only entries from outside
            named = {"type": {"type": "string", "pattern": ":"}}
            return {"type": "object", "properties": named, "required": ["type"]}
        return {"oneOf": [handler(section.__pydantic_core_schema__) for section in sections]}


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


def without_effect(section: Section, path: Path = ()) -> list[tuple[Path, str]]:
    """The keys that were given although they have no effect here: (path, reason)."""
    found: list[tuple[Path, str]] = []
    fields: Mapping[str, FieldInfo] = type(section).model_fields
    for key in section.model_fields_set:  # further keys among them
        value = getattr(section, key)
        field = fields.get(key)
        notes = field.json_schema_extra if field else None
        if isinstance(notes, dict) and "no_effect" in notes and value is not None:
            found.append(((*path, key), str(notes["no_effect"])))
        elif isinstance(value, Section):
            found += without_effect(value, (*path, key))
    return sorted(found, key=lambda item: str(item[0]))
