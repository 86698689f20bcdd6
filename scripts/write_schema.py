"""Write options/schema/*.json: what editors complete and check option files by.

  python scripts/write_schema.py            write them
  python scripts/write_schema.py --check    exit code 1 when a file on disk differs

A file is strict where our reader is, and says less: sizes that must fit each other are left to
`restore check`.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import sys
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

from restore.recipes.bench_trees import BenchTree
from restore.recipes.trees import TestTree, TrainTree
from restore.section import Section

FOLDER = Path(__file__).resolve().parent.parent / "options" / "schema"
TREES = {"train": TrainTree, "test": TestTree, "bench": BenchTree}
DIALECT = "https://json-schema.org/draft/2020-12/schema"
OUTSIDE = {
    "title": "your own",
    "description": "An entry outside the table, as package.module:NAME.",
    "properties": {"type": {"pattern": ":", "type": "string"}},
    "required": ["type"],
    "type": "object",
}


def main() -> int:
    """Write or compare all files."""
    parser = argparse.ArgumentParser(description="JSON schemas of the option files")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    check = parser.parse_args().check
    different = []
    for name, tree in TREES.items():
        file, text = FOLDER / f"{name}.json", schema_text(tree)
        if check and not (file.exists() and file.read_text(encoding="utf-8") == text):
            different.append(file)
        elif not check:
            FOLDER.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    for file in different:
        print(f"{file}: out of date; run python scripts/write_schema.py", file=sys.stderr)
    return 1 if different else 0


def schema_text(tree: type[Section]) -> str:
    """The schema of `tree` as the file holds it: keys sorted, so that a change is a small diff."""
    raw = tree.model_json_schema()
    definitions: dict[str, Any] = {}
    for name, section in raw.pop("$defs", {}).items():
        definitions[name] = _section(section, definitions)
    whole = _section(raw, definitions)
    whole |= {"$schema": DIALECT, "$defs": definitions, "title": f"restore: {tree.__doc__}"}
    return json.dumps(whole, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _section(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of one Section, with what its source says about it and its fields."""
    section = _sections()[schema["title"]]
    described = _field_docs(section)
    properties = {
        key: _value(value, definitions) | _note(value, described.get(key))
        for key, value in schema["properties"].items()
    }
    kept = {k: schema[k] for k in ("required", "title") if k in schema}
    result = kept | {"type": "object", "additionalProperties": False, "properties": properties}
    if section.further_keys:
        further = _value(schema["additionalProperties"], definitions)
        result["patternProperties"] = {f"^({section.further_keys})$": further}
    about = _class_doc(section)
    return result | ({"description": about} if about else {})


def _value(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema of one value; a choice by `type` becomes references to its sections."""
    if "oneOf" in schema and all("title" in entry for entry in schema["oneOf"]):
        return {"oneOf": [_entry(entry, definitions) for entry in schema["oneOf"]] + [OUTSIDE]}
    kept = {k: v for k, v in schema.items() if k not in ("title", "no_effect")}
    if kept.get("default", 0) is None or isinstance(kept.get("default"), dict):
        del kept["default"]  # "absent" and whole sections tell an editor's user nothing
    for either in {"anyOf", "oneOf"} & kept.keys():
        kept[either] = [_value(part, definitions) for part in kept[either]]
    return kept


def _entry(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    name = schema["title"]
    if name not in definitions:
        section = _section(schema, definitions)
        section["required"] = sorted({"type", *section.get("required", ())})
        definitions[name] = section
    return {"$ref": f"#/$defs/{name}"}


def _note(schema: dict[str, Any], described: str | None) -> dict[str, Any]:
    if "no_effect" in schema:
        return {"description": f"No effect here: {schema['no_effect']}.", "deprecated": True}
    return {"description": described} if described else {}


def _sections() -> dict[str, type[Section]]:
    """Every Section by its name."""
    found: dict[str, type[Section]] = {}
    waiting: list[type[Section]] = [Section]
    for section in waiting:
        waiting += section.__subclasses__()
        found[section.__name__] = section
    return found


def _lineage(section: type[Section]) -> list[type[Section]]:
    """`section` and those that it is made from, itself first."""
    return [base for base in section.__mro__ if issubclass(base, Section) and base is not Section]


def _class_doc(section: type[Section]) -> str | None:
    docs = (base.__doc__ for base in _lineage(section))
    return next((inspect.cleandoc(doc) for doc in docs if doc), None)


def _field_docs(section: type[Section]) -> dict[str, str]:
    """Field -> the text that stands under it in the source."""
    found: dict[str, str] = {}
    for base in reversed(_lineage(section)):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, text in pairwise(body.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                    found[field.target.id] = inspect.cleandoc(str(text.value.value))
    return found


if __name__ == "__main__":
    sys.exit(main())
