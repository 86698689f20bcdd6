"""Floor 2. Sections: the strict, frozen, typed options that each part owns.

A part declares what it can be told as a `Section` beside itself; `parsing` makes one from values.
This file and every file of options import no torch, so that a typo is answered at once.
"""

from __future__ import annotations

import os
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError, core_schema

from restore.catalog import Catalog, locate

Path = tuple[str | int, ...]  # where a value stands in the tree: ("train", "optim_g", "lr")


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
    """What a field validator raises so that `parsing` can say it in the house's form.

    `at` is the key inside the field's mapping that is wrong, when it is not the whole of it.
    """
    # pydantic's message template is not used: `parsing` reads the context
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
