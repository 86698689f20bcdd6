"""Floor 3. YAML text <-> plain values; `options` reads and writes files by it.

The YAML accepted is 1.2's core: `2e-4` is a number, `no` is text, a key stands once, tags build
nothing. Limits keep a hostile text from costing time or memory (reliability: rows 1 to 10).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from restore.errors import OptionError
from restore.section import Path

MAX_DEPTH = 32
MAX_ALIASES = 100
MAX_VALUES = 10_000


def load(text: str, name: str, places: dict[Path, str]) -> Any:
    """The plain values of a YAML text, lists as tuples; None for a text without any.

    Fills `places` with `name:line` of each value. Raises OptionError (OPT04, OPT07 to OPT10,
    OPT17); `name` stands in its messages.
    """
    return _Reader(name, places).read(text)


def dump(values: Mapping[str, Any]) -> str:
    """Plain values as YAML text that `load` reads back to the same values."""
    return yaml.dump(_listed(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value


class _Dumper(yaml.SafeDumper):
    """SafeDumper that quotes text which our reader would take for something else."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    folded = re.search("[\x85\u2028\u2029]", text)  # ends of lines: only double quotes keep them
    return dumper.represent_scalar(_TAG + "str", text, style='"' if folded else None)


_Dumper.add_representer(str, _text)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}


_SCALARS = (
    ("null", r"~|null|Null|NULL|", "~nN"),
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)
_TAG = "tag:yaml.org,2002:"
for _name, _pattern, _first in _SCALARS:
    _compiled = re.compile(f"^(?:{_pattern})$")
    _firsts = [*_first, ""] if _name == "null" else list(_first)
    _Loader.add_implicit_resolver(_TAG + _name, _compiled, _firsts)
    _Dumper.add_implicit_resolver(_TAG + _name, _compiled, _firsts)


class _Reader:
    """One YAML text -> plain values; fills `places` with `name:line` of each of them."""

    def __init__(self, name: str, places: dict[Path, str]) -> None:
        self.name, self.places = name, places
        self.seen: set[int] = set()
        self.aliases = 0

    def read(self, text: str) -> Any:
        try:
            self._check_depth(text)
            node = yaml.compose(text, Loader=_Loader)
        except yaml.reader.ReaderError as error:
            raise OptionError.of(
                "OPT04",
                "a character that YAML does not allow",
                self.name,
                f"character 0x{error.character:02x} at {error.position}",
                "printable text",
                "remove it",
            ) from None
        except yaml.MarkedYAMLError as error:
            raise self._syntax(text, error) from None
        except (ValueError, OverflowError) as error:  # an escape or a version beyond all bounds
            raise OptionError.of(
                "OPT04",
                "a number that YAML does not allow",
                self.name,
                str(error),
                "valid YAML",
                "check escapes such as \\U0001F600 and the %YAML line",
            ) from None
        return None if node is None else self._value(node, ())

    def _check_depth(self, text: str) -> None:
        depth = 0
        for count, event in enumerate(yaml.parse(text, Loader=_Loader)):
            if count > 3 * MAX_VALUES:  # a list of one value is three events
                raise self._too_many(event)
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    raise self._too_deep(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1

    def _syntax(self, text: str, error: yaml.MarkedYAMLError) -> OptionError:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        lines = text.splitlines() or [""]
        shown = lines[min(line, len(lines)) - 1].strip()
        return OptionError.of(
            "OPT04",
            f"YAML syntax: {error.problem or error.context}",
            self.name if self.name.startswith("--") else f"{self.name}:{line}:{column}",
            repr(shown if len(shown) <= 60 else shown[:57] + "…"),
            "valid YAML",
            "check indentation, colons and quotes on that line",
        )

    def _too_deep(self, at: yaml.Node | yaml.Event) -> OptionError:
        return OptionError.of(
            "OPT09",
            "options are nested too deeply",
            self._line(at),
            f"depth > {MAX_DEPTH}",
            f"depth ≤ {MAX_DEPTH}",
            "flatten the file",
        )

    def _too_many(self, at: yaml.Node | yaml.Event) -> OptionError:
        return OptionError.of(
            "OPT08",
            "too many values",
            self._line(at),
            f"more than {MAX_VALUES}, aliases expanded",
            f"at most {MAX_VALUES}",
            "is this really an option file?",
        )

    def _value(self, node: yaml.Node, path: Path) -> Any:
        if len(path) > MAX_DEPTH:  # aliases inside aliases
            raise self._too_deep(node)
        if len(self.places) > MAX_VALUES:
            raise self._too_many(node)
        self.places[path] = self._line(node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self.seen:
            self.aliases += 1
            if self.aliases > MAX_ALIASES:
                raise OptionError.of(
                    "OPT08",
                    "too many aliases",
                    self._line(node),
                    f"more than {MAX_ALIASES} expansions",
                    f"at most {MAX_ALIASES}",
                    "write the values out",
                )
        self.seen.add(id(node))
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return tuple(self._value(item, (*path, i)) for i, item in enumerate(node.value))
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, path)
        raise self._tag(node)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        first: dict[str, str] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise OptionError.of(
                    "OPT17",
                    "a key must be text",
                    self._line(key_node),
                    "a collection",
                    "text",
                    "write a plain key",
                )
            self._scalar(key_node)  # refuses tags; the key itself is its text
            key = str(key_node.value)
            if key in values:
                raise OptionError.of(
                    "OPT10",
                    f"key '{key}' stands twice",
                    self._line(key_node),
                    f"also at {first[key]}",
                    "each key once",
                    "remove one",
                )
            first[key] = self._line(key_node)
            values[key] = self._value(value_node, (*path, key))
            self.places[(*path, key)] = first[key]
        return values

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text, kind = node.value, node.tag.removeprefix(_TAG)
        try:
            if kind == "null":
                return None
            if kind == "bool":
                return {"true": True, "false": False}[text.lower()]
            if kind == "int":
                return int(text, {"0x": 16, "0o": 8}.get(text[:2].lower(), 10))
            if kind == "float":
                return float(re.sub(r"\.(inf|nan)$", r"\1", text, flags=re.IGNORECASE))
        except (ValueError, KeyError):
            raise OptionError.of(
                "OPT17",
                f"not a value of !!{kind}",
                self._line(node),
                repr(text),
                f"a {kind}",
                "change it",
            ) from None
        if kind == "str":
            return text
        raise self._tag(node)

    def _tag(self, node: yaml.Node) -> OptionError:
        return OptionError.of(
            "OPT07",
            "tag not allowed",
            self._line(node),
            node.tag.replace(_TAG, "!!"),
            "plain values",
            "remove the tag; option files build no objects",
        )

    def _line(self, at: yaml.Node | yaml.Event) -> str:
        return self.name if self.name.startswith("--") else f"{self.name}:{at.start_mark.line + 1}"
