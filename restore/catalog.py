"""Floor 2. Frozen name tables that answer an unknown name with the nearest known one."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

T = TypeVar("T")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name` (letter case aside), or None when nothing is alike."""
    by_lower = {k.lower(): k for k in known}
    found = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=0.55)
    return by_lower[found[0]] if found else None


def locate(path: str) -> Any:
    """The object that a dotted path `package.module:Name` names; imports the module.

    Raises ImportError or AttributeError when there is no such thing.
    """
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


class Catalog(Mapping[str, T], Generic[T]):
    """A written table name -> entry. `kind` is what one entry is called in messages."""

    def __init__(self, kind: str, entries: Mapping[str, T]) -> None:
        self.kind = kind
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> T:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def nearest(self, name: str) -> str | None:
        """The entry's name most like `name`, or None."""
        return nearest(name, self._entries)
